"""The data sets that go by a name: what they are, where they lie, and how they are loaded."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from quickstudy.data.cache import data_root, data_roots, find
from quickstudy.data.dataset import ClassDataset
from quickstudy.data.digits import digits
from quickstudy.data.folder import from_folder
from quickstudy.data.glyphs import glyphs
from quickstudy.data.omniglot import PARTS, URLS, omniglot
from quickstudy.data.quickdraw import categories, quickdraw
from quickstudy.errors import DataError, UserError, unknown


@dataclass(frozen=True)
class Info:
    """What `quickstudy data info NAME` prints about a built-in data set.

    Args:
        files: what is looked for, relative to each of the places; none for a data set that is made.
        urls: where what is missing is fetched from.
        bytes: how much that is in all.
        splits: the ready-made splits and their classes in meta-train/validation/test.
        augment: how pictures of meta-training are usually distorted, where classes have few examples.
    """

    name: str
    about: str
    classes: int
    examples: str
    licence: str
    citation: str
    splits: dict[str, str]
    augment: str = "none"
    files: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    bytes: int = 0

    def places(self, root: str | Path | None = None) -> list[Path]:
        """The folders that are looked through, in order; none where there are no files to find."""
        return data_roots(root) if self.files else []

    def present(self, root: str | Path | None = None) -> list[Path]:
        """The files that are here."""
        found = [find([file, Path(file).name], root) for file in self.files]
        return [path for path in found if path is not None]

    def ready(self, root: str | Path | None = None) -> bool:
        """Whether it loads without a download."""
        return len(self.present(root)) == len(self.files)

    def target(self, root: str | Path | None = None) -> Path | None:
        """The folder a download would be put in."""
        return data_root(root) / self.name if self.urls else None


_INFO = {
    "omniglot": Info(
        name="omniglot",
        about="handwritten characters of 50 alphabets, each drawn by the same 20 people",
        classes=1623,
        examples="20",
        licence="MIT, copyright (c) 2015 Brenden Lake",
        citation="Lake, Salakhutdinov and Tenenbaum (2015), Human-level concept learning through "
        "probabilistic program induction, Science 350",
        splits={"vinyals": "1028/172/423", "authors": "775/189/659", "alphabet": "926/337/360"},
        files=tuple(f"omniglot/{part.file}" for part in PARTS.values()),
        urls=tuple(URLS[0] + part.file for part in PARTS.values()),
        bytes=sum(part.size for part in PARTS.values()),
    ),
    "quickdraw": Info(
        name="quickdraw",
        about="sketches of 345 things from the game Quick, Draw!, labels as the players were told",
        classes=345,
        examples="20",
        licence="CC BY 4.0, Quick, Draw! Dataset, Google",
        citation="Ha and Eck (2018), A neural representation of sketch drawings, ICLR",
        splits={"random": "207/69/69"},
        augment="drawing",
        files=tuple(f"quickdraw/numpy_bitmap/{name}.npy" for name in categories()),
        urls=("https://storage.googleapis.com/quickdraw_dataset/full/numpy_bitmap/",),
        bytes=345 * (20 * 784 + 80),
    ),
    "glyphs": Info(
        name="glyphs",
        about="made-up handwritten characters, drawn in memory",
        classes=3000,
        examples="20",
        licence="MIT, as this library",
        citation="made by this library",
        splits={"default": "1800/600/600"},
    ),
    "digits": Info(
        name="digits",
        about="the ten digits in 8x8 pixels that come with scikit-learn",
        classes=10,
        examples="174 to 183",
        licence="CC BY 4.0",
        citation="Alpaydin and Kaynak (1998), Optical recognition of handwritten digits, UCI Machine "
        "Learning Repository",
        splits={"default": "4/3/3"},
    ),
}


def names() -> list[str]:
    """The names of the built-in data sets."""
    return list(_INFO)


def describe(name: str) -> Info:
    """What is known about a built-in data set without loading it.

    Raises:
        UserError: nothing goes by that name.

    Example:
        >>> describe("omniglot").splits["vinyals"]
        '1028/172/423'
    """
    if name not in _INFO:
        raise unknown("data set", name, _INFO)
    return _INFO[name]


@functools.lru_cache(maxsize=1)
def _glyphs(samples_per_class: int, size: int) -> ClassDataset:
    """Enough classes that episodes teach what an ordinary classifier does not; made once a process."""
    return glyphs(3000, samples_per_class, size=size)


def load(
    name: str | Path,
    *,
    root: str | Path | None = None,
    samples_per_class: int | None = None,
    seed: int = 0,
    size: int = 28,
    download: bool = True,
) -> ClassDataset:
    """A built-in data set, or a folder of pictures, by one word.

    Args:
        name: one of `names()`, or the path of a folder with one folder of pictures per class.
        root: where built-in data are looked for first.
        samples_per_class: keep this many examples of each class, drawn by `seed`; by default all. Of
            quickdraw these are the first ones, by default 20, since no others are fetched; glyphs, of 3,000
            classes here, writes just so many, by default 20.
        size: the side of the pictures in pixels; quickdraw has 28 only.
        download: whether to fetch what is missing.

    Raises:
        UserError: neither a built-in data set nor a folder, or data that cannot be used.

    Example:
        >>> load("digits", samples_per_class=20)
        ClassDataset(digits: 10 classes, 20 examples each, 1x28x28 torch.uint8)
    """
    if samples_per_class is not None and samples_per_class < 1:
        raise DataError(f"{samples_per_class} samples per class; at least 1 is needed")
    if name == "quickdraw" and size != 28:
        raise DataError(f"quickdraw: the pictures are 28x28, not {size}x{size}; leave the size at 28")
    makers: dict[str, Callable[[], ClassDataset]] = {
        "omniglot": lambda: omniglot(root, size=size, download=download),
        "quickdraw": lambda: quickdraw(root, samples_per_class=samples_per_class or 20, download=download),
        "glyphs": lambda: _glyphs(samples_per_class or 20, size),
        "digits": lambda: digits(size=size),
    }
    if name in makers:  # a Path is a folder, whatever its name
        data = makers[str(name)]()
    elif Path(name).expanduser().exists() or isinstance(name, Path) or os.sep in name:
        data = from_folder(name, size=size)
    else:
        raise UserError(f"{unknown('data set', name, makers)}; there is no folder of that name either")
    if samples_per_class is None or name in ("quickdraw", "glyphs"):
        return data
    return data.limit(samples_per_class, seed)
