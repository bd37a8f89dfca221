"""Write a file whole or not at all: a reader, or a run that goes on after a crash, never sees half of one."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from quickstudy.errors import RunError


def write_bytes(path: Path, content: bytes) -> None:
    """Write to a temporary file beside `path`, flush it to the disk, rename it over `path`.

    Raises:
        RunError: the folder cannot be written to, or the disk is full; `path` holds all of what it held
            before, or all of `content`.

    Example:
        >>> write_bytes(Path("runs/a/note.txt"), b"all of it")  # doctest: +SKIP
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        _write(temporary, content, os.O_TRUNC)
        os.rename(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise _refused(path, error) from error
        raise


def append(path: Path, content: bytes) -> None:
    """Add to the end of a file and flush it to the disk; a crash may leave a part of `content` there.

    Raises:
        RunError: the folder cannot be written to, or the disk is full.
    """
    try:
        _write(path, content, os.O_APPEND)
    except OSError as error:
        raise _refused(path, error) from error


def write_json(path: Path, value: Any) -> None:
    """`value` as indented JSON, atomically."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def _write(path: Path, content: bytes, how: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | how, 0o644)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refused(path: Path, error: OSError) -> RunError:
    return RunError(f"cannot write {path}: {error.strerror or error}")
