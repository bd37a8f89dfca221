"""Downloads that go on where they stopped, are checked, and appear only when they are whole.

What has come so far lies beside the destination in `NAME.part`, and what the server calls that version of
its file in `NAME.part.tag`: a later call asks for the rest on the condition that it still is that version.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from quickstudy.data.npy import LONGEST, npy_header
from quickstudy.errors import DataError
from quickstudy.files import write_whole

BACKOFF = 0.3  # seconds before the second attempt; twice as long before each later one
HEADER = 128  # an .npy header's usual length: asked for together with the rows


class _Failed(Exception):
    """An attempt came to nothing; `again` says whether the same server may do better."""

    def __init__(self, reason: str, again: bool = False) -> None:
        super().__init__(reason)
        self.again = again


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
            raise _Failed(f"it has {found} bytes, not the {size} expected")
        for kind, expected in sums.items():
            with path.open("rb") as file:
                got = hashlib.file_digest(file, kind).hexdigest()
            if got != expected:
                raise _Failed(f"its {kind} is {got}, not the {expected} expected")

    def finish(part: Path) -> None:
        check(part)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(dest)

    if dest.exists():
        try:
            check(dest)
        except _Failed as wrong:
            raise DataError(f"{dest} is damaged or another file: {wrong}; remove it, try again") from None
        return dest
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with session() as client, Progress(*columns, console=Console(stderr=True), disable=not progress) as bar:
        task = bar.add_task(f"Downloading {dest.name}", total=size)

        def report(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total or size)

        _download(client, urls, dest, None, finish, retries, _bytes(size), report)
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
        dest: where the file is put, in place of one that is there.
        rows: how many rows; of a file with fewer all are kept, unless something is at `dest`.
        client: a `session()` to share among many files.

    Raises:
        DataError: no mirror gave the rows, the file holds something else, or has fewer rows and `dest`
            is there already.

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
                raise _Failed(str(error)) from None
            if shape is not None and shape[1:] != (width,):
                raise _Failed(f"it holds {list(shape)}, not [n, {width}]")
            if shape is not None and shape[0] < rows and dest.exists():
                raise _Failed(f"it has {shape[0]} rows, fewer than the {rows} asked for")
            count = rows if shape is None else min(rows, shape[0])
            end = start + count * width
            if shape is None or part.stat().st_size < end:
                return end
            file.seek(start)
            array = np.frombuffer(file.read(count * width), np.uint8).reshape(count, width)
        write_whole(dest, lambda file: np.save(file, array, allow_pickle=False))
        return None

    guess = HEADER + rows * width
    size = f"its first {_bytes(guess)}"
    if client is not None:
        _download(client, urls, dest, guess, finish, retries, size)
    else:
        with session() as own:
            _download(own, urls, dest, guess, finish, retries, size)
    return dest


def _download(
    client: httpx.Client,
    urls: Sequence[str],
    dest: Path,
    limit: int | None,
    finish: Callable[[Path], int | None],
    retries: int,
    size: str,
    report: Callable[[int, int | None], None] = lambda done, total: None,
) -> None:
    """Try the mirrors until `finish` accepts what came; it may answer how many bytes it needs instead."""
    part = dest.with_name(dest.name + ".part")
    reasons = []
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        for url in urls:
            for trial in range(retries + 1):
                time.sleep(BACKOFF * 2 ** (trial - 1) if trial else 0)
                failed = _try(client, url, part, limit, finish, report)
                if failed is None:
                    _drop(part)
                    return
                if not failed.again:
                    break
            reasons.append(f"{httpx.URL(url).host}: {failed}")
    except OSError as error:
        raise DataError(f"{dest} cannot be written: {error.strerror or error}") from None
    raise DataError(
        f"{dest.name} could not be downloaded ({'; '.join(reasons)}): try again, "
        f"or place {urls[0]} ({size}) at {dest}"
    )


def _try(
    client: httpx.Client,
    url: str,
    part: Path,
    limit: int | None,
    finish: Callable[[Path], int | None],
    report: Callable[[int, int | None], None],
) -> _Failed | None:
    """One attempt at one mirror; None when `finish` accepted what came."""
    while True:
        had = _begun(part)
        try:
            _attempt(client, url, part, limit, report)
        except httpx.HTTPError as error:
            return _Failed(str(error) or type(error).__name__, again=True)
        except _Failed as failed:
            return failed
        try:
            limit = finish(part)
        except _Failed as failed:
            _drop(part)
            failed.again = had > 0  # the fault may lie in the old beginning
            return failed
        if limit is None:
            return None
        if _begun(part) <= had:
            return _Failed(f"it ends after {part.stat().st_size} bytes, before {limit}", again=True)


def _attempt(
    client: httpx.Client, url: str, part: Path, limit: int | None, report: Callable[[int, int | None], None]
) -> None:
    """Bring the part up to `limit` bytes or to the end; what came before a failure stays."""
    have = _begun(part)
    if limit is not None and have >= limit:
        return
    headers = {"Accept-Encoding": "identity"}  # the bytes of the file themselves: ranges count those
    if have or limit is not None:
        headers["Range"] = f"bytes={have}-{'' if limit is None else limit - 1}"
    if have:
        headers["If-Range"] = _tag(part).read_text("latin1")
    with client.stream("GET", url, headers=headers) as answer:
        status = answer.status_code
        first, total = _content_range(answer.headers.get("Content-Range", ""))
        if status == 416:
            if total == have > 0:
                return  # stopped between the last byte and the renaming
            _drop(part)
            raise _Failed("the server has no such range", again=True)
        if status == 206 and first != have:
            _drop(part)
            raise _Failed(f"the server answered from byte {first}, not {have}", again=True)
        if status not in (200, 206):
            raise _Failed(f"{status} {answer.reason_phrase}", again=status >= 500 or status in (408, 429))
        if status == 200:
            have, total = 0, int(answer.headers.get("Content-Length") or 0)
        if not have:
            _drop(part)
            tag = answer.headers.get("ETag", "")
            tag = answer.headers.get("Last-Modified", "") if not tag or tag.startswith("W/") else tag
            if _usable(tag):
                _tag(part).write_text(tag, "latin1")
        with part.open("rb+" if have else "wb") as file:
            file.seek(have)
            for chunk in answer.iter_raw():
                file.write(chunk if limit is None else chunk[: limit - have])
                have += len(chunk)
                report(have, total or None)
                if limit is not None and have >= limit:
                    return  # a server without ranges sends everything


def _content_range(text: str) -> tuple[int | None, int | None]:
    """The first byte and the whole length that a Content-Range header tells."""
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", text.strip())
    if not match:
        return None, None
    return int(match[1]) if match[1] else None, int(match[2]) if match[2] != "*" else None


def _tag(part: Path) -> Path:
    return part.with_name(part.name + ".tag")


def _begun(part: Path) -> int:
    """The bytes to go on from: none without a tag to tell the version by."""
    if not part.exists() or not _tag(part).exists() or not _usable(_tag(part).read_text("latin1")):
        return 0
    return part.stat().st_size


def _usable(tag: str) -> bool:
    """Whether a header can carry it; a crash of the machine may leave an empty file."""
    return bool(tag.strip()) and tag.isascii() and tag.isprintable()


def _drop(part: Path) -> None:
    part.unlink(missing_ok=True)
    _tag(part).unlink(missing_ok=True)


def _bytes(size: int | None) -> str:
    if size is None:
        return "size unknown"
    return f"{size / 1e6:.1f} MB" if size > 1e5 else f"{size / 1e3:.1f} kB"
