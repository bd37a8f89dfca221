"""A user's own pictures: one folder per class."""

from __future__ import annotations

import os
import unicodedata
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import PIL
import torch
from PIL import Image

from quickstudy.data.cache import build, cache_root, key
from quickstudy.data.dataset import ClassDataset
from quickstudy.data.images import SUFFIXES, convert, decode
from quickstudy.data.parallel import parallel_map
from quickstudy.errors import DataError, unknown

TINT = 16
"""A picture is coloured where two channels of a pixel differ by more than this."""

LARGE = 30_000
"""Files of more bytes than this, in the mean, are decoded in threads."""

_RUBBISH = {"thumbs.db", "desktop.ini", "__macosx"}


def from_folder(
    path: str | Path,
    *,
    size: int | None = 28,
    color: Literal["grey", "rgb"] | None = None,
    invert: bool = False,
    cache_dir: str | Path | None = None,
    progress: bool = True,
) -> ClassDataset:
    """The pictures below a folder; each folder that itself holds pictures is a class.

    A class is named by its path below `path`, `/` between the parts, so that `greek/alpha` and
    `latin/a` work as well as plain `cats` and `dogs`. Hidden files and files that are no pictures by
    their names are passed over. See `read_image` for how a picture becomes an array.

    Args:
        size: the side in pixels; None for pictures that all have one size already.
        color: "grey", "rgb", or None for grey unless any picture is coloured.
        invert: whether black becomes white.
        cache_dir: where the decoded pictures are kept; by default in the cache folder. They are decoded
            again when a file is added, removed or changed.
        progress: whether a bar may appear on standard error.

    Returns:
        Classes sorted by name, their pictures by file name, `x` uint8 `[M, C, H, W]`.

    Raises:
        DataError: no class folders, a class without pictures, two classes whose names differ only in
            case or spelling of accents, or a file that cannot be read; the message names it.

    Example:
        >>> from_folder("photos", size=84).split(seed=1)  # doctest: +SKIP
    """
    if color not in (None, "grey", "rgb"):
        raise unknown("color", str(color), ["grey", "rgb"])
    if size is not None and size < 1:
        raise DataError(f"the size is {size}; it must be at least 1 pixel")
    root = Path(path).expanduser()
    classes = class_folders(root)
    files = [file for members in classes.values() for file in members]

    stats = [(file.relative_to(root).as_posix(), *_stamp(file)) for file in files]
    large = sum(bytes for _, bytes, _ in stats) > LARGE * len(files)

    def make() -> ClassDataset:
        with warnings.catch_warnings():  # too large a picture is refused with an error of our own
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            title = f"Reading {root.name}"
            pictures = parallel_map(
                lambda file: decode(file, size), files, title, threads=large, progress=progress
            )
        kind = color or ("rgb" if any(map(_coloured, pictures)) else "grey")
        for file, picture in zip(files, pictures, strict=True):
            if picture.size != pictures[0].size:
                raise DataError(
                    f"{file}: {_extent(picture)}, but {files[0]} is {_extent(pictures[0])}; give a size"
                )
        shape = f"padded square, shrunk by area to {size}x{size}" if size else _extent(pictures[0])
        return ClassDataset(
            x=torch.from_numpy(np.stack([convert(picture, kind, invert) for picture in pictures])),
            offsets=torch.tensor([0, *map(len, classes.values())]).cumsum(0),
            names=tuple(classes),
            name=root.resolve().name or "folder",
            note=f"{kind}{', inverted' if invert else ''}, {shape}",
        )

    name = key("folder", root.resolve().name, list(classes), stats, size, color, invert, PIL.__version__)
    return build(name, cache_dir or cache_root() / "sets", make)


def class_folders(root: Path) -> dict[str, list[Path]]:
    """The picture files of each class: each folder below `root` that itself holds pictures is a class.

    Raises:
        DataError: as `from_folder`.
    """
    if not root.exists():
        raise DataError(f"{root}: there is no such folder")
    if not root.is_dir():
        raise DataError(f"{root}: a file, where a folder with one folder of pictures per class was expected")
    found = {}
    for folder, pictures in _walk(root, ()):
        if folder != root:
            found[folder.relative_to(root).as_posix()] = pictures
        elif pictures:
            raise DataError(
                f"{pictures[0]}: a picture outside any class folder; put it in its class's folder"
            )
    if not found:
        raise DataError(f"{root}: no class folders; make one folder of pictures per class in it")
    known: dict[str, str] = {}
    for name in sorted(found):
        if any("\ud800" <= letter <= "\udfff" for letter in name):
            raise DataError(f"{root}: the folder {name!r} has a name that is not UTF-8; rename it")
        plain = unicodedata.normalize("NFKC", name).casefold()
        if plain in known:
            raise DataError(
                f"{root}: the classes {known[plain]!r} and {name!r} have the same name but for its spelling"
            )
        known[plain] = name
    return {name: found[name] for name in sorted(found)}


def _walk(folder: Path, above: tuple[Path, ...]) -> Iterator[tuple[Path, list[Path]]]:
    """Each folder that holds pictures, with them; the top folder even without."""
    real = folder.resolve()
    if real in above:
        raise DataError(f"{folder}: a link back to a folder it lies in; remove it")
    try:
        entries = [e for e in sorted(folder.iterdir()) if not ignored(e.name)]
        folders = [e for e in entries if e.is_dir()]
    except PermissionError:
        raise DataError(f"{folder}: no permission to read this folder") from None
    pictures = [e for e in entries if e not in folders and e.suffix.lower() in SUFFIXES]
    if above and not folders and not pictures:
        others = f" ({len(entries)} files that are none)" if entries else ""
        raise DataError(f"{folder}: the class folder holds no pictures{others}; add some or remove it")
    if pictures or not above:
        yield folder, pictures
    for inner in folders:
        yield from _walk(inner, (*above, real))


def ignored(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or left behind by a system."""
    return name.startswith(".") or name.lower() in _RUBBISH


def _stamp(file: Path) -> tuple[int, int]:
    try:
        stat = os.stat(file)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from None
    return stat.st_size, stat.st_mtime_ns


def _coloured(picture: Image.Image) -> bool:
    if picture.mode == "L":
        return False
    pixels = np.asarray(picture).astype(np.int16)
    return bool((pixels.max(-1) - pixels.min(-1) > TINT).any())


def _extent(picture: Image.Image) -> str:
    return f"{picture.width}x{picture.height}"
