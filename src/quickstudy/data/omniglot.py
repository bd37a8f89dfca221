"""Omniglot: 1,623 handwritten characters of 50 alphabets, 20 drawings of each.

Lake, Salakhutdinov and Tenenbaum (2015), Human-level concept learning through probabilistic program
induction, Science 350. MIT licence, copyright (c) 2015 Brenden Lake.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from quickstudy.data.cache import build, cache_root, data_root, data_roots, find, key
from quickstudy.data.dataset import ClassDataset
from quickstudy.data.parallel import parallel_map
from quickstudy.errors import DataError, unknown


class Part(NamedTuple):
    """One of the publisher's two zips; its sum and size as tensorflow/datasets lists them."""

    file: str
    size: int
    sha256: str


PARTS = {
    "background": Part(
        "images_background.zip", 9_464_212, "ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640"
    ),
    "evaluation": Part(
        "images_evaluation.zip", 6_462_886, "1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee"
    ),
}
URLS = (
    "https://github.com/brendenlake/omniglot/raw/master/python/",
    "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/",
)
FILTERS = {
    "area": Image.Resampling.BOX,
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
DRAWERS = 20
SIDE = 105
NAME = re.compile(r"(?:.*/)?([^/]+/character\d\d)/\d{4}_(\d\d)\.png")


def omniglot(
    root: str | Path | None = None,
    *,
    size: int = 28,
    filter: str = "area",
    download: bool = True,
    cache: bool = True,
    progress: bool = True,
) -> ClassDataset:
    """Omniglot, from the publisher's two zips, ink 255 on 0.

    Args:
        root: where to look first for `images_background.zip` and `images_evaluation.zip`, themselves or
            in a folder `omniglot`; then `$QUICKSTUDY_DATA` and the cache folder.
        size: the side in pixels; the publisher's is 105.
        filter: how the pictures are shrunk: area, nearest, bilinear, bicubic or lanczos.
        download: whether to fetch what is missing.
        cache: whether to keep the decoded pictures in the cache folder.

    Returns:
        1,623 classes `Alphabet/characterNN` in the publisher's order, `x` uint8 `[32460, 1, size, size]`,
        the attribute `drawer` (0 to 19), the class attribute `alphabet`, and the splits
        "vinyals" (1028/172/423 characters), "authors" (the publisher's evaluation part is meta-test) and
        "alphabet" (30/10/10 whole alphabets).

    Raises:
        DataError: a zip is missing and cannot be fetched, is damaged, or holds other pictures.

    Example:
        >>> train, val, test = omniglot().split("vinyals")  # doctest: +SKIP
        >>> train.rotated()  # doctest: +SKIP
        ClassDataset(omniglot: 4112 classes, 20 examples each, 1x28x28 torch.uint8)
    """
    if filter not in FILTERS:
        raise unknown("filter", filter, FILTERS)
    if not 1 <= size <= SIDE:
        raise DataError(f"omniglot: the size is {size}, not between 1 and {SIDE}")
    zips = {part: _place(part, root, download).read_bytes() for part in PARTS}

    def make() -> ClassDataset:
        parts = [_read(content, part, size, filter, progress) for part, content in zips.items()]
        return _assemble(np.concatenate(parts), size, filter)

    if not cache:
        return make()
    name = key("omniglot", size, filter, *zips.values(), repr(splits()))
    return build(name, cache_root() / "sets", make)


def splits() -> dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    """The ready-made splits by name, as class indices: meta-train, meta-validation, meta-test."""
    facts, published = _facts("omniglot.json"), _facts("omniglot_vinyals.json")
    whole = {**facts["background"], **facts["evaluation"]}
    ranges = {"vinyals": (published["val"], published["test"])}
    for how in ("authors", "alphabet"):
        val, test = facts[how]["val"], facts[how]["test"]
        ranges[how] = ({a: (1, whole[a]) for a in val}, {a: (1, whole[a]) for a in test})
    index = {name: c for c, name in enumerate(class_names())}
    out = {}
    for how, (val, test) in ranges.items():
        v, t = ({index[n] for n in _spell(part)} for part in (val, test))
        out[how] = (tuple(sorted({*index.values()} - v - t)), tuple(sorted(v)), tuple(sorted(t)))
    return out


def class_names(part: str | None = None) -> tuple[str, ...]:
    """The names of the 1,623 characters, or of one part's, in the publisher's order."""
    facts = _facts("omniglot.json")
    return tuple(
        name
        for p in ([part] if part else PARTS)
        for name in _spell({alphabet: (1, count) for alphabet, count in facts[p].items()})
    )


def _spell(ranges: dict[str, tuple[int, int]]) -> list[str]:
    return [f"{a}/character{i:02d}" for a, (first, last) in ranges.items() for i in range(first, last + 1)]


def _facts(file: str) -> dict[str, Any]:
    return json.loads((resources.files("quickstudy.data") / "splits" / file).read_text("utf-8"))


def _place(part: str, root: str | Path | None, download: bool) -> Path:
    file, size, sha256 = PARTS[part]
    found = find([f"omniglot/{file}", file], root)
    if found is not None:
        return found
    dest = data_root(root) / "omniglot" / file
    if not download:
        raise DataError(
            f"omniglot: {file} is not in {', '.join(map(str, data_roots(root)))}; {by_hand(root)}"
        )
    from quickstudy.data.download import fetch

    try:
        return fetch([url + file for url in URLS], dest, sha256=sha256, size=size)
    except DataError as error:
        raise DataError(f"{error}; by hand: {by_hand(root)}") from None


def by_hand(root: str | Path | None) -> str:
    """How to place the two zips without a download."""
    total = sum(part.size for part in PARTS.values())
    files = " and ".join(part.file for part in PARTS.values())
    return f"place {files} of {URLS[0]} ({total / 1e6:.1f} MB together) in {data_root(root) / 'omniglot'}"


def _read(content: bytes, part: str, size: int, filter: str, progress: bool) -> np.ndarray:
    """uint8 `[classes, 20, size, size]`, after the zip was found to hold just what it should."""
    file = PARTS[part].file
    expected = class_names(part)
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError(f"omniglot: {file} is not a whole zip file ({error}); remove it, try again") from None
    found = {(m[1], int(m[2])): info for info in archive.infolist() if (m := NAME.fullmatch(info.filename))}
    wanted = [(name, drawer) for name in expected for drawer in range(1, DRAWERS + 1)]
    wrong = sorted({*wanted} ^ {*found})
    if wrong:
        (name, drawer), fault = wrong[0], "missing" if wrong[0] in wanted else "not one of them"
        raise DataError(
            f"omniglot: {file} should hold {len(expected)} characters of {DRAWERS} drawings each; "
            f"{name}, drawing {drawer}, is {fault} ({len(wrong)} differences in all)"
        )

    def decode(which: tuple[str, int]) -> np.ndarray:
        info = found[which]
        try:
            if info.file_size > 100_000:
                raise ValueError(f"{info.file_size} bytes are too many for a drawing")
            with Image.open(io.BytesIO(archive.read(info)), formats=["PNG"]) as picture:
                if picture.size != (SIDE, SIDE):
                    raise ValueError(f"it is {picture.width}x{picture.height}, not {SIDE}x{SIDE}")
                small = picture.convert("L").resize((size, size), FILTERS[filter])
        except (OSError, ValueError, SyntaxError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(f"omniglot: {info.filename} in {file} cannot be read: {error}") from None
        return 255 - np.asarray(small)  # black ink on white paper in the file

    pictures = parallel_map(decode, wanted, f"Reading {file}", threads=False, progress=progress)
    return np.stack(pictures).reshape(len(expected), DRAWERS, size, size)


def _assemble(pictures: np.ndarray, size: int, filter: str) -> ClassDataset:
    names = class_names()
    return ClassDataset(
        x=torch.from_numpy(pictures.reshape(-1, 1, size, size)),
        offsets=torch.arange(len(names) + 1) * DRAWERS,
        names=names,
        attributes={"drawer": torch.arange(DRAWERS).repeat(len(names))},
        class_attributes={"alphabet": tuple(name.split("/")[0] for name in names)},
        splits=splits(),
        name="omniglot",
        note=f"ink 255 on 0, {SIDE}x{SIDE} to {size}x{size} by the {filter} filter",
    )
