"""Quick, Draw!: 345 categories of drawings made in 20 seconds by players all over the world.

Licence CC BY 4.0, attribution: "Quick, Draw! Dataset, Google".
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import numpy as np
import torch

from quickstudy.data.cache import data_root, data_roots, find
from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import DataError, unknown

SIDE = 28
SOURCES = {"bitmap": ("numpy_bitmap", ".npy")}  # its folder, how its files end


def quickdraw(
    root: str | Path | None = None,
    *,
    samples_per_class: int | None = 20,
    seed: int | None = None,
    source: str = "bitmap",
    folder: str = "quickdraw",
    download: bool = True,
) -> ClassDataset:
    """Quick, Draw!, from the publisher's files `FOLDER/numpy_bitmap/CATEGORY.npy`, ink 255 on 0.

    Args:
        root: where to look first for the folder; then `$QUICKSTUDY_DATA` and the cache folder.
        samples_per_class: so many drawings of each category, by default its first ones, which are the
            same on every machine; None for all that are here, unequally many.
        seed: choose them among all that are here by this seed instead.
        source: "bitmap" for the publisher's pixels.
        folder: "quickdraw" holds the 345 categories; of any other folder the categories are its files.

    Returns:
        One class a category in the publisher's order, `x` uint8 `[M, 1, 28, 28]`; no ready-made split:
        `split("random", seed=0)` makes one of 207/69/69 categories.

    Raises:
        DataError: a file is missing, is damaged, or has too few drawings.

    Example:
        >>> train, val, test = quickdraw(samples_per_class=20).split("random", seed=0)  # doctest: +SKIP
        >>> train  # doctest: +SKIP
        ClassDataset(quickdraw: 207 classes, 20 examples each, 1x28x28 torch.uint8)
    """
    if source not in SOURCES:
        raise unknown("source", source, SOURCES)
    if samples_per_class is not None and samples_per_class < 1:
        raise DataError(f"{folder}: {samples_per_class} samples per class; at least 1 is needed")
    names = categories() if folder == "quickdraw" else _files(root, folder, source)
    parts = []
    for name in names:
        rows = _find(name, root, folder, samples_per_class)
        parts.append(rows[_choice(len(rows), samples_per_class, seed)])
    return ClassDataset(
        x=torch.from_numpy(np.concatenate(parts).reshape(-1, 1, SIDE, SIDE)),
        offsets=torch.tensor([0, *np.cumsum([len(part) for part in parts])]),
        names=names,
        name=folder,
        note=f"ink 255 on 0, {SIDE}x{SIDE}, the publisher's bitmaps",
    )


def categories() -> tuple[str, ...]:
    """The names of the 345 categories, in the publisher's order."""
    facts = resources.files("quickstudy.data") / "splits" / "quickdraw_categories.json"
    return tuple(json.loads(facts.read_text("utf-8"))["categories"])


def read_bitmaps(path: Path) -> np.ndarray:
    """The drawings in one of the publisher's .npy files, uint8 `[n, 784]`, mapped into memory.

    Raises:
        DataError: the file is damaged, or holds something else.
    """
    try:
        rows = np.lib.format.open_memmap(path, mode="r")  # reads no pickle
    except (OSError, ValueError, EOFError, OverflowError, SyntaxError) as error:
        raise DataError(f"{path} is not a whole .npy file ({error}); remove it, try again") from None
    if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != SIDE * SIDE:
        raise DataError(f"{path} holds {rows.dtype} {list(rows.shape)}, not uint8 [n, {SIDE * SIDE}]")
    return rows


def _files(root: str | Path | None, folder: str, source: str) -> tuple[str, ...]:
    place, suffix = SOURCES[source]
    found = find([f"{folder}/{place}"], root)
    names = sorted(path.stem for path in found.glob(f"*{suffix}")) if found else []
    if not names:
        raise DataError(
            f"{folder}: no {suffix} files in {folder}/{place} in {', '.join(map(str, data_roots(root)))}"
        )
    return tuple(names)


def _find(name: str, root: str | Path | None, folder: str, wanted: int | None) -> np.ndarray:
    """The drawings of the first file that has enough of them."""
    file = f"{folder}/numpy_bitmap/{name}.npy"
    most = -1
    for place in data_roots(root):
        if (place / file).exists():
            rows = read_bitmaps(place / file)
            if len(rows) >= (wanted or 1):
                return rows
            most = max(most, len(rows))
    if most >= 0:
        raise DataError(
            f"{folder}: category {name!r} has {most} drawings, fewer than the {wanted or 1} asked for"
        )
    raise DataError(
        f"{folder}: {name}.npy is not in {', '.join(map(str, data_roots(root)))}; "
        f"place it at {data_root(root) / file}, or allow the download"
    )


def _choice(count: int, wanted: int | None, seed: int | None) -> slice | np.ndarray:
    if seed is None or wanted is None:
        return slice(wanted)
    return np.sort(np.random.default_rng(seed).permutation(count)[:wanted])
