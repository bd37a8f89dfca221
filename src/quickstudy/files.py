"""Write a file whole or not at all: a reader, or a run that goes on after a crash, never sees half of one."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from quickstudy.errors import RunError


class Writer(Protocol):
    """What a file's content is written into."""

    def write(self, content: bytes, /) -> object:
        """Add to the end, all of it."""
        ...


def write_whole(path: Path, fill: Callable[[Writer], object]) -> None:
    """Let `fill` write to a temporary file beside `path`, flush that to the disk, rename it over `path`.

    Any number of processes may do so at once; the last one's content stays. Who may read the file is left
    to the process's umask.

    Args:
        fill: is given an object with `write(bytes)`, for content too large to be held twice.

    Raises:
        OSError: the folder cannot be written to, or the disk is full; `path` holds all of what it held
            before, or all of the new content. So it does where `fill` raises.

    Example:
        >>> write_whole(Path("a.npy"), lambda file: np.save(file, array))  # doctest: +SKIP
    """
    temporary = path.with_name(f"{path.name}.{secrets.randbits(63)}.tmp")
    try:
        with _opened(temporary, os.O_EXCL) as file:
            fill(file)
        os.replace(temporary, path)
        if os.name == "posix":  # elsewhere a folder cannot be opened
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """A file of a run, with this content, atomically; see `write_whole`.

    Raises:
        RunError: the folder cannot be written to, or the disk is full; `path` holds all of what it held
            before, or all of `content`.

    Example:
        >>> write_bytes(Path("runs/a/note.txt"), b"all of it")  # doctest: +SKIP
    """
    try:
        write_whole(path, lambda file: file.write(content))
    except OSError as error:
        raise _refused(path, error) from error


def append(path: Path, content: bytes) -> None:
    """Add to the end of a file and flush it to the disk; a crash may leave a part of `content` there.

    Raises:
        RunError: the folder cannot be written to, or the disk is full.
    """
    try:
        with _opened(path, os.O_APPEND) as file:
            file.write(content)
    except OSError as error:
        raise _refused(path, error) from error


def write_json(path: Path, value: Any) -> None:
    """`value` as indented JSON, atomically."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


class _Descriptor:
    def __init__(self, number: int) -> None:
        self.number = number

    def write(self, content: bytes) -> None:
        view = memoryview(content)
        while view:
            view = view[os.write(self.number, view) :]


@contextlib.contextmanager
def _opened(path: Path, how: int) -> Iterator[Writer]:
    """A file to write to, on the disk when the block ends."""
    number = os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0) | how, 0o666)
    try:
        yield _Descriptor(number)
        os.fsync(number)
    finally:
        os.close(number)


def _refused(path: Path, error: OSError) -> RunError:
    return RunError(f"cannot write {path}: {error.strerror or error}")
