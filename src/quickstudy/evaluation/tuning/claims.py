"""Who does what among processes that share a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def claimed(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Within this block no other process, and no thread, holds this file, which is made and stays; it ends
    with the process that holds it, however that ends.

    Where the file system or the platform has no locks, nothing is checked.

    Args:
        wait: until it is free; otherwise the block is given False where it is not.

    >>> with claimed(Path("a.lock")), claimed(Path("a.lock"), wait=False) as free:
    ...     free
    False
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield True
        return
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        free = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            free = False
        except OSError:
            pass
        yield free
    finally:
        os.close(file)
