"""Map a function of one task over a batch of tasks: in a loop, on threads, or vectorised.

Every strategy equals the plain loop; they differ in speed. Padding is taken out before the function sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Literal, TypeVar

import torch
from torch import Tensor

from quickstudy.inner.gradient import vectorised
from quickstudy.tasks.task import Task

Strategy = Literal["loop", "threads", "vmap"]
Result = TypeVar("Result")


@contextmanager
def _one_thread_each() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def each_task(
    function: Callable[[Task], Result], batch: Task, strategy: Strategy = "loop", workers: int = 2
) -> list[Result]:
    """`function` of each task of a batch, in order; with "threads", `workers` tasks at a time."""
    tasks = list(batch.unbatch())
    if strategy != "threads" or len(tasks) == 1:
        return [function(task) for task in tasks]
    grad = torch.is_grad_enabled()  # gradient mode is a thread's own

    def call(task: Task) -> Result:
        torch.set_num_threads(1)
        with torch.set_grad_enabled(grad):
            return function(task)

    with _one_thread_each(), ThreadPoolExecutor(workers) as pool:
        return list(pool.map(call, tasks))


def map_tasks(
    function: Callable[[Task], dict[str, Tensor]],
    batch: Task,
    strategy: Strategy = "loop",
    workers: int = 2,
) -> dict[str, Tensor]:
    """`function` of each task of a batch, its named tensors stacked along a first dimension T.

    >>> from quickstudy.tasks.regression import Lines
    >>> import numpy as np
    >>> batch = Lines(shot=3).batch(np.arange(4))
    >>> map_tasks(lambda task: {"mean": task.support.y.mean()}, batch, "vmap")["mean"].shape
    torch.Size([4])
    """
    if strategy == "vmap" and not batch.padded:

        def call(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            with vectorised():
                return function(batch.with_tensors(tensors))

        return torch.func.vmap(call)(batch.tensors())
    results = each_task(function, batch, strategy, workers)
    return {k: torch.stack([r[k] for r in results]) for k in results[0]}
