"""Downloads that go on where they stopped, are checked, and appear only when they are whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import httpx
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from quickstudy.data.npy import LONGEST, npy_header, read_rows
from quickstudy.data.transfer import Failed, claimed, drop, transfer
from quickstudy.errors import DataError
from quickstudy.files import write_whole

HEADER = 128  # an .npy header's usual length: asked for together with the rows


def session() -> httpx.Client:
    """A client that follows redirects and gives up on a silent server; several threads may share it."""
    return httpx.Client(follow_redirects=True, timeout=httpx.Timeout(30.0, connect=10.0))


def fetch(
    urls: Sequence[str],
    dest: Path,
    *,
    sha256: str | None = None,
    md5: str | None = None,
    size: int | None = None,
    retries: int = 3,
    progress: bool = True,
) -> Path:
    """Download a file, unless it is there: checked, resumed where it stopped, whole or not at all.

    Args:
        urls: mirrors of one file, tried in order.
        dest: where the file is put; folders are made.
        sha256, md5: what the file's checksum has to be, in hex.
        size: how many bytes it has to have.
        retries: further attempts at a server that fails in a way that may pass.
        progress: whether to draw a bar on standard error.

    Returns:
        `dest`.

    Raises:
        DataError: no mirror gave the file, or only another than it should be; the message says what was
            expected, what was found, and where to put a file fetched by hand.

    Example:
        >>> fetch(["https://example.org/a.zip"], Path("a.zip"), size=1024)  # doctest: +SKIP
        PosixPath('a.zip')
    """
    dest = Path(dest)
    sums = {kind: given.lower() for kind, given in (("sha256", sha256), ("md5", md5)) if given}

    def check(path: Path) -> None:
        found = path.stat().st_size
        if size is not None and found != size:
            raise Failed(f"it has {found} bytes, not the {size} expected")
        for kind, expected in sums.items():
            with path.open("rb") as file:
                got = hashlib.file_digest(file, kind).hexdigest()
            if got != expected:
                raise Failed(f"its {kind} is {got}, not the {expected} expected")

    def finish(part: Path) -> None:
        check(part)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(dest)

    def here() -> bool:
        if not dest.exists():
            return False
        try:
            check(dest)
        except Failed as wrong:
            raise DataError(f"{dest} is damaged or another file: {wrong}; remove it, try again") from None
        return True

    if here():
        return dest
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with (
        claimed(dest),
        session() as client,
        Progress(*columns, console=Console(stderr=True), disable=not progress) as bar,
    ):
        if here():  # fetched by another while this one waited
            return dest
        task = bar.add_task(f"Downloading {dest.name}", total=size)

        def report(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total or size)

        transfer(client, urls, dest, None, finish, retries, _bytes(size), report)
    return dest


def fetch_rows(
    urls: Sequence[str],
    dest: Path,
    rows: int,
    *,
    width: int = 784,
    retries: int = 3,
    client: httpx.Client | None = None,
) -> Path:
    """Download only the first rows of a uint8 `.npy` file, as a whole `.npy` file of that many rows.

    Args:
        urls: mirrors of one file that holds uint8 `[n, width]`, tried in order.
        dest: where the file is put, in place of one with fewer of these rows.
        rows: how many rows; of a file with fewer all are kept, unless something is at `dest`.
        client: a `session()` to share among many files.

    Raises:
        DataError: no mirror gave the rows, the file holds something else, or `dest` is there already and
            has other rows.

    Example:
        >>> fetch_rows(["https://example.org/cat.npy"], Path("cat.npy"), 20)  # doctest: +SKIP
        PosixPath('cat.npy')
    """
    dest = Path(dest)

    def finish(part: Path) -> int | None:
        with part.open("rb") as file:
            try:
                start, shape = npy_header(file.read(LONGEST))
            except ValueError as error:
                raise Failed(str(error)) from None
            if shape is not None and shape[1:] != (width,):
                raise Failed(f"it holds {list(shape)}, not [n, {width}]")
            if shape is not None and shape[0] < rows and dest.exists():
                raise Failed(f"it has {shape[0]} rows, fewer than the {rows} asked for")
            count = rows if shape is None else min(rows, shape[0])
            end = start + count * width
            if shape is None or part.stat().st_size < end:
                return end
            file.seek(start)
            array = np.frombuffer(file.read(count * width), np.uint8).reshape(count, width)
        old = _rows(dest, width)
        if not np.array_equal(old, array[: len(old)]):
            drop(part)
            raise DataError(
                f"{dest} holds other rows than the first of {urls[0]}, which would replace them; move it "
                "away, or ask for no more rows than it has"
            )
        write_whole(dest, lambda file: np.save(file, array, allow_pickle=False))
        return None

    guess = HEADER + rows * width
    size = f"its first {_bytes(guess)}"
    with claimed(dest), nullcontext(client) if client else session() as connection:
        if len(_rows(dest, width)) >= rows:  # fetched by another while this one waited
            return dest
        transfer(connection, urls, dest, guess, finish, retries, size)
    return dest


def _rows(path: Path, width: int) -> np.ndarray:
    return read_rows(path, width) if path.exists() else np.zeros((0, width), np.uint8)


def _bytes(size: int | None) -> str:
    if size is None:
        return "size unknown"
    return f"{size / 1e6:.1f} MB" if size > 1e5 else f"{size / 1e3:.1f} kB"
