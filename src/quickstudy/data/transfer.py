"""One file's way from its mirrors to a part beside its destination: retried, resumed, one at a time.

What has come so far lies beside the destination in `NAME.part`, and what the server calls that version of
its file in `NAME.part.tag`: a later call asks for the rest on the condition that it still is that version.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx

from quickstudy.errors import DataError

BACKOFF = 0.3  # seconds before the second attempt; twice as long before each later one


class Failed(Exception):
    """An attempt came to nothing; `again` says whether the same server may do better."""

    def __init__(self, reason: str, again: bool = False) -> None:
        super().__init__(reason)
        self.again = again


@contextlib.contextmanager
def claimed(dest: Path) -> Iterator[None]:
    """Within this block no other process or thread claims this destination; others wait for their turn.

    Where the file system or the platform has no locks they do not wait.

    Raises:
        DataError: the folder cannot be written to.
    """
    lock = dest.with_name(dest.name + ".part.lock")
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        while True:
            with lock.open("a") as file:
                _wait_for(file.fileno())
                if not _is_still(lock, file.fileno()):
                    continue  # removed by the one that was waited for
                try:
                    yield
                finally:
                    lock.unlink(missing_ok=True)
                return
    except OSError as error:
        raise DataError(f"{dest} cannot be written: {error.strerror or error}") from None


def _wait_for(descriptor: int) -> None:
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def part_of(dest: Path) -> Path:
    """Where what has come so far lies."""
    return dest.with_name(dest.name + ".part")


def transfer(
    client: httpx.Client,
    urls: Sequence[str],
    dest: Path,
    limit: int | None,
    finish: Callable[[Path], int | None],
    retries: int,
    size: str,
    report: Callable[[int, int | None], None] = lambda done, total: None,
) -> None:
    """Try the mirrors until `finish` accepts what came; it may answer how many bytes it needs instead.

    Args:
        limit: how many bytes to ask for; None for the whole file.
        finish: is given the part; raises `Failed` where it is not what it should be.
        size: what is asked for, in words.

    Raises:
        DataError: no mirror gave what `finish` accepts.
    """
    part = part_of(dest)
    reasons = []
    for url in urls:
        for trial in range(retries + 1):
            time.sleep(BACKOFF * 2 ** (trial - 1) if trial else 0)
            failed = _try(client, url, part, limit, finish, report)
            if failed is None:
                drop(part)
                return
            if not failed.again:
                break
        reasons.append(f"{httpx.URL(url).host}: {failed}")
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
) -> Failed | None:
    """One attempt at one mirror; None when `finish` accepted what came."""
    while True:
        had = _begun(part)
        try:
            _attempt(client, url, part, limit, report)
        except httpx.HTTPError as error:
            return Failed(str(error) or type(error).__name__, again=True)
        except Failed as failed:
            return failed
        try:
            limit = finish(part)
        except Failed as failed:
            drop(part)
            failed.again = had > 0  # the fault may lie in the old beginning
            return failed
        if limit is None:
            return None
        if _begun(part) <= had:
            return Failed(f"it ends after {part.stat().st_size} bytes, before {limit}", again=True)


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
            drop(part)
            raise Failed("the server has no such range", again=True)
        if status == 206 and first != have:
            drop(part)
            raise Failed(f"the server answered from byte {first}, not {have}", again=True)
        if status not in (200, 206):
            raise Failed(f"{status} {answer.reason_phrase}", again=status >= 500 or status in (408, 429))
        if status == 200:
            have, total = 0, int(answer.headers.get("Content-Length") or 0)
        if not have:
            drop(part)
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


def drop(part: Path) -> None:
    """Forget what has come."""
    part.unlink(missing_ok=True)
    _tag(part).unlink(missing_ok=True)
