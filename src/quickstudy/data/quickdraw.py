"""Quick, Draw!: 345 categories of drawings made in 20 seconds by players all over the world.

Licence CC BY 4.0, attribution: "Quick, Draw! Dataset, Google"; a data set's `note` says so too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib import resources
from itertools import chain
from pathlib import Path
from urllib.parse import quote

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress

from quickstudy.data.cache import build, cache_root, data_root, data_roots, find, key
from quickstudy.data.dataset import ClassDataset
from quickstudy.data.npy import read_rows
from quickstudy.data.parallel import parallel_map
from quickstudy.data.strokes import rasterise, read_strokes
from quickstudy.errors import DataError, unknown

URL = "https://storage.googleapis.com/quickdraw_dataset/full/numpy_bitmap/"
STROKES_URL = "https://storage.googleapis.com/quickdraw_dataset/full/simplified/"
LICENCE = "Quick, Draw! Dataset, Google, CC BY 4.0"
THREADS = 8  # downloads at a time
SIDE = 28
SOURCES = {
    "bitmap": ("numpy_bitmap", ".npy"),
    "strokes": ("simplified", ".ndjson"),
}  # its folder, how its files end


def quickdraw(
    root: str | Path | None = None,
    *,
    samples_per_class: int | None = 20,
    seed: int | None = None,
    source: str = "bitmap",
    folder: str = "quickdraw",
    download: bool = True,
    classes: Sequence[str] | None = None,
) -> ClassDataset:
    """Quick, Draw!, from the publisher's files `FOLDER/numpy_bitmap/CATEGORY.npy`, ink 255 on 0.

    Args:
        root: where to look first for the folder; then `$QUICKSTUDY_DATA` and the cache folder.
        samples_per_class: so many drawings of each category, by default its first ones, which are the
            same on every machine; None for all that are here, unequally many.
        seed: choose them among all that are here by this seed instead.
        source: "bitmap" for the publisher's pixels; "strokes" to draw them anew, nearly the same, from
            `FOLDER/simplified/CATEGORY.ndjson`, which are not fetched, and keep them in the cache folder.
            These have the attributes "recognized", 1 where the publisher's program guessed the drawing,
            and "country", a code that `quickstudy.data.country` reads.
        folder: "quickdraw" holds the 345 categories; of any other folder the categories are its files.
        download: whether to fetch the first `samples_per_class` drawings of categories with fewer here
            (some 800 bytes a drawing); never done for None, nor over drawings that are not the publisher's.
        classes: only these categories, in this order; by default all.

    Returns:
        One class a category in the publisher's order, `x` uint8 `[M, 1, 28, 28]`; no ready-made split:
        `split("random", seed=0)` makes one of 207/69/69 categories.

    Raises:
        DataError: a file is missing, is damaged, or has too few drawings.
        UserError: an unknown source or category.

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
    if classes is not None and not classes:
        raise DataError(f"{folder}: no classes are asked for; name at least one, or leave it at all")
    for name in classes or ():
        if name not in names:
            raise unknown("category", name, names)
    names = names if classes is None else tuple(classes)
    if source == "strokes":
        return _drawn(names, root, folder, samples_per_class, seed)
    found = {name: _find(name, root, folder, samples_per_class or 1) for name in names}
    short = [name for name in names if len(found[name]) < (samples_per_class or 1)]
    if short and download and folder == "quickdraw" and samples_per_class:
        _download({name: len(found[name]) for name in short}, root, samples_per_class)
        found.update((name, _find(name, root, folder, samples_per_class)) for name in short)
        short = [name for name in short if len(found[name]) < samples_per_class]
    if short:
        raise DataError(_missing(short, len(found[short[0]]), root, folder, samples_per_class or 1))
    parts = [found[name][_choice(len(found[name]), samples_per_class, seed)] for name in names]
    return _assemble(names, parts, folder, "the publisher's bitmaps")


def categories() -> tuple[str, ...]:
    """The names of the 345 categories, in the publisher's order."""
    facts = resources.files("quickstudy.data") / "splits" / "quickdraw_categories.json"
    return tuple(json.loads(facts.read_text("utf-8"))["categories"])


def country(code: int) -> str:
    """The two letters of ISO 3166-1 that a value of the attribute "country" stands for.

    >>> country(21843)
    'US'
    """
    return int(code).to_bytes(2, "big").decode("ascii")


def _assemble(
    names: tuple[str, ...],
    parts: list[np.ndarray],
    folder: str,
    how: str,
    attributes: Mapping[str, torch.Tensor] | None = None,
) -> ClassDataset:
    return ClassDataset(
        x=torch.from_numpy(np.concatenate(parts).reshape(-1, 1, SIDE, SIDE)),
        offsets=torch.tensor([0, *np.cumsum([len(part) for part in parts])]),
        names=names,
        attributes=attributes or {},
        name=folder,
        note=f"ink 255 on 0, {SIDE}x{SIDE}, {how}; {LICENCE}",
    )


def _drawn(
    names: tuple[str, ...], root: str | Path | None, folder: str, wanted: int | None, seed: int | None
) -> ClassDataset:
    """The pictures drawn from strokes, kept in the cache folder."""
    files = []
    for name in names:
        file = f"{folder}/simplified/{name}.ndjson"
        path = find([file], root)
        if path is None:
            raise DataError(
                f"{folder}: {name}.ndjson is not in {', '.join(map(str, data_roots(root)))}; place "
                f"{STROKES_URL}{quote(name)}.ndjson at {data_root(root) / file}"
            )
        files.append(path)

    def draw(path: Path) -> tuple[np.ndarray, list[int], list[int]]:
        drawings = read_strokes(path, wanted if seed is None else None)
        if len(drawings) < (wanted or 1):
            raise DataError(
                f"{folder}: category {path.stem!r} has {len(drawings)} drawings, fewer than the "
                f"{wanted or 1} asked for"
            )
        chosen = [drawings[i] for i in np.arange(len(drawings))[_choice(len(drawings), wanted, seed)]]
        pictures = np.stack([rasterise(drawing.strokes, SIDE) for drawing in chosen])
        codes = [int.from_bytes(drawing.country.encode("ascii"), "big") for drawing in chosen]
        return pictures, [int(drawing.recognized) for drawing in chosen], codes

    def make() -> ClassDataset:
        drawn = parallel_map(draw, files, "Drawing strokes", threads=False)
        parts, recognized, codes = zip(*drawn, strict=True)
        attributes = {
            "recognized": torch.tensor(list(chain(*recognized)), dtype=torch.int64),
            "country": torch.tensor(list(chain(*codes)), dtype=torch.int64),
        }
        return _assemble(names, list(parts), folder, "drawn from the publisher's strokes", attributes)

    stamps = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return build(key("strokes, recipe 2", folder, names, wanted, seed, stamps), cache_root() / "sets", make)


def _files(root: str | Path | None, folder: str, source: str) -> tuple[str, ...]:
    place, suffix = SOURCES[source]
    found = find([f"{folder}/{place}"], root)
    names = sorted(path.stem for path in found.glob(f"*{suffix}")) if found else []
    if not names:
        raise DataError(
            f"{folder}: no {suffix} files in {folder}/{place} in {', '.join(map(str, data_roots(root)))}"
        )
    return tuple(names)


def _find(name: str, root: str | Path | None, folder: str, wanted: int) -> np.ndarray:
    """The drawings of the first file that has enough of them, else of one with the most, else none."""
    files = [place / folder / "numpy_bitmap" / f"{name}.npy" for place in data_roots(root)]
    best = np.zeros((0, SIDE * SIDE), np.uint8)
    for file in files:
        if len(best) < wanted and file.exists():
            best = max(best, read_rows(file, SIDE * SIDE), key=len)
    return best


def _missing(names: list[str], count: int, root: str | Path | None, folder: str, wanted: int) -> str:
    others = f" ({len(names) - 1} more like it)" if len(names) > 1 else ""
    if count:
        return (
            f"{folder}: category {names[0]!r} has {count} drawings, fewer than the {wanted} asked for{others}"
        )
    return (
        f"{folder}: {names[0]}.npy is not in {', '.join(map(str, data_roots(root)))}{others}; place "
        f"{_url(names[0])} at {_target(names[0], root)}, or allow the download of some samples per class"
    )


def _url(name: str) -> str:
    return URL + quote(f"{name}.npy")


def _target(name: str, root: str | Path | None) -> Path:
    return data_root(root) / "quickdraw" / "numpy_bitmap" / f"{name}.npy"


def _download(here: dict[str, int], root: str | Path | None, rows: int) -> None:
    """The first rows of the categories that have so many here; what came before an interruption is kept."""
    from quickstudy.data.download import fetch_rows, session

    title = f"Downloading {rows} drawings of {len(here)} categories"

    def one(name: str) -> None:
        target = _target(name, root)
        try:
            fetch_rows([_url(name)], target, rows, client=client)
        except DataError as error:
            megabytes = len(here) * (rows * SIDE * SIDE + 80) / 1e6
            raise DataError(
                f"quickdraw: category {name!r} has {here[name]} of the {rows} drawings asked for, and {error}"
                f" (it is one of {len(here)}, {megabytes:.1f} MB in all, that belong in {target.parent})"
            ) from None

    with (
        session() as client,
        Progress(console=Console(stderr=True), transient=True) as bar,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        task = bar.add_task(title, total=len(here))
        jobs = [pool.submit(one, name) for name in here]
        try:
            for job in as_completed(jobs):
                job.result()
                bar.advance(task)
        finally:
            pool.shutdown(cancel_futures=True)


def _choice(count: int, wanted: int | None, seed: int | None) -> slice | np.ndarray:
    if seed is None or wanted is None:
        return slice(wanted)
    return np.sort(np.random.default_rng(seed).permutation(count)[:wanted])
