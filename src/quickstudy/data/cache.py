"""Where data sets lie, and tensors kept beside them so that pictures are decoded only once.

A cached data set is two files: `KEY.npy`, mapped into memory and never pickled, and `KEY.json` with the
names and everything else. The second is written last and holds a checksum of both, so a write that
was cut off, or a file damaged later, is seen and made anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import torch

from quickstudy.data.dataset import ClassDataset
from quickstudy.files import write_whole

log = logging.getLogger(__name__)

FORMAT = 1


def cache_root() -> Path:
    """The folder for what can be made again: `$QUICKSTUDY_CACHE`, else the platform's cache folder."""
    return Path(os.environ.get("QUICKSTUDY_CACHE") or platformdirs.user_cache_dir("quickstudy")).expanduser()


def data_roots(data_dir: str | Path | None = None) -> list[Path]:
    """The folders in which data sets are looked for, in order.

    `data_dir`, then `$QUICKSTUDY_DATA`, then `data` in the cache folder.
    """
    given = [data_dir, os.environ.get("QUICKSTUDY_DATA"), cache_root() / "data"]
    return [Path(place).expanduser() for place in given if place]


def data_root(data_dir: str | Path | None = None) -> Path:
    """The first of `data_roots` that can be written to: downloads are put there."""
    roots = data_roots(data_dir)
    return next((root for root in roots if _writable(root)), roots[0])


def find(names: Iterable[str], data_dir: str | Path | None = None) -> Path | None:
    """The first file or folder of these relative names, by place and then by name; None if there is none."""
    names = list(names)
    for root in data_roots(data_dir):
        for name in names:
            if (root / name).exists():
                return root / name
    return None


def key(*parts: object) -> str:
    """32 hex digits that name what was made from these strings, numbers, bytes and tuples."""
    digest = hashlib.blake2b(repr(FORMAT).encode(), digest_size=16)
    for part in parts:
        digest.update(part if isinstance(part, bytes) else repr(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()


def build(key: str, directory: str | Path, make: Callable[[], ClassDataset]) -> ClassDataset:
    """The data set kept under `key`, or the one `make` returns, which is kept from then on.

    Args:
        key: names the content; see `key`.
        directory: where the two files are kept; made if missing. A folder that cannot be written to
            costs the cache, not the data set.
        make: builds the data set; called when nothing, or something damaged, is kept.

    Returns:
        The data set, its `x` mapped into memory copy-on-write: writing to it never reaches the file.

    Example:
        >>> data = build(key("squares", 28), cache_root() / "sets", make_squares)  # doctest: +SKIP
    """
    directory = Path(directory)
    kept = _load(directory / f"{key}.npy", directory / f"{key}.json")
    if kept is not None:
        return kept
    made = make()
    try:
        _save(made, directory / f"{key}.npy", directory / f"{key}.json")
    except OSError as error:
        log.warning("the data set %s is not kept in %s: %s", made.name, directory, error)
        return made
    return _load(directory / f"{key}.npy", directory / f"{key}.json") or made


def _writable(folder: Path) -> bool:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK)


def _checksum(array: np.ndarray, header: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(header).encode(), zlib.crc32(np.ascontiguousarray(array).data))


def _save(data: ClassDataset, array_path: Path, header_path: Path) -> None:
    array = np.ascontiguousarray(data.x.numpy())
    header: dict[str, Any] = {
        "format": FORMAT,
        "names": data.names,
        "offsets": data.offsets.tolist(),
        "attributes": {k: v.tolist() for k, v in data.attributes.items()},
        "class_attributes": dict(data.class_attributes),
        "splits": dict(data.splits),
        "name": data.name,
        "note": data.note,
    }
    header["crc32"] = _checksum(array, header)
    array_path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(array_path, lambda file: np.save(file, array, allow_pickle=False))
    write_whole(header_path, lambda file: file.write(json.dumps(header).encode()))


def _load(array_path: Path, header_path: Path) -> ClassDataset | None:
    try:
        header = json.loads(header_path.read_bytes())
        array = np.load(array_path, mmap_mode="c", allow_pickle=False)
        if header.pop("crc32") != _checksum(array, header) or header["format"] != FORMAT:
            raise ValueError("the checksum differs")
        return ClassDataset(
            x=torch.from_numpy(array),
            offsets=torch.tensor(header["offsets"], dtype=torch.int64),
            names=tuple(header["names"]),
            attributes={k: torch.tensor(v, dtype=torch.int64) for k, v in header["attributes"].items()},
            class_attributes={k: tuple(v) for k, v in header["class_attributes"].items()},
            splits={k: (tuple(a), tuple(b), tuple(c)) for k, (a, b, c) in header["splits"].items()},
            name=header["name"],
            note=header["note"],
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        log.warning("the kept data set %s is damaged (%s) and is made anew", array_path, error)
        return None
