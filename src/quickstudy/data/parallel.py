"""One function over many files, in threads or not, with a progress bar where it takes a while."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress

A = TypeVar("A")
B = TypeVar("B")

PATIENCE = 2.0  # seconds of silence before a bar appears


def parallel_map(
    function: Callable[[A], B],
    items: Sequence[A],
    title: str = "Reading",
    *,
    threads: bool = True,
    progress: bool = True,
) -> list[B]:
    """`[function(item) for item in items]` in threads; the first error stops the rest.

    Args:
        threads: False for work that mostly holds Python's lock (a picture of a few kB), where threads
            make it some three times slower.
        title: stands before the bar, which appears on standard error after two seconds.
        progress: whether a bar may appear at all.

    Example:
        >>> parallel_map(len, ["one", "three"])
        [3, 5]
    """
    if not threads:
        return list(_watched(map(function, items), len(items), title, progress))
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        return list(_watched(pool.map(function, items), len(items), title, progress))
    finally:
        pool.shutdown(cancel_futures=True)


def _watched(results: Iterable[B], total: int, title: str, progress: bool) -> Iterable[B]:
    began = time.monotonic()
    bar = Progress(console=Console(stderr=True), transient=True)
    task = bar.add_task(title, total=total)
    try:
        for done, result in enumerate(results, 1):
            if progress and not bar.live.is_started and time.monotonic() - began > PATIENCE:
                bar.start()
            if bar.live.is_started:
                bar.update(task, completed=done)
            yield result
    finally:
        bar.stop()
