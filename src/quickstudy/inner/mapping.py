"""Map a function of one task over a batch of tasks: in a loop, or vectorised.

Both equal the same plain loop; they differ in speed, and in what a net draws (dropout). Padding is taken out
before the function sees it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from quickstudy.errors import UserError
from quickstudy.inner.gradient import vectorised
from quickstudy.tasks.task import Task

Strategy = Literal["loop", "vmap"]


def map_tasks(
    function: Callable[[Task], dict[str, Tensor]], batch: Task, strategy: Strategy = "loop"
) -> dict[str, Tensor]:
    """`function` of each task of a batch, its named tensors stacked along a first dimension T.

    Raises:
        UserError: the function does what vmap cannot.

    >>> from quickstudy.tasks.regression import Lines
    >>> import numpy as np
    >>> batch = Lines(shot=3).batch(np.arange(4))
    >>> map_tasks(lambda task: {"mean": task.support.y.mean()}, batch, "vmap")["mean"].shape
    torch.Size([4])
    """
    if vectorisable(batch, strategy):

        def call(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            with vectorised():
                return function(batch.with_tensors(tensors))

        try:  # "different": dropout draws anew for each task
            return torch.func.vmap(call, randomness="different")(batch.tensors())
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            function(next(batch.unbatch()))  # what fails by itself too is not vmap's: its own error stands
            raise UserError(
                "the net does what cannot be vectorised over tasks, such as `if` on a tensor, .item(), "
                'indexing by a mask or a recurrent layer: use strategy="loop" (--strategy loop)'
            ) from error
    results = [function(task) for task in batch.unbatch()]
    return {k: torch.stack([r[k] for r in results]) for k in results[0]}


def vectorisable(batch: Task, strategy: Strategy) -> bool:
    """Whether the tasks are mapped all at once: by vmap, and where they are of one size."""
    return strategy == "vmap" and not batch.padded
