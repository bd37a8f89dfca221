"""Map a function of one task over a batch of tasks: in a loop, by threads, or vectorised.

All equal the same plain loop; they differ in speed, and in what a net draws (dropout). Padding is taken out
before the function sees it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from quickstudy.errors import UserError
from quickstudy.inner.choice import Strategy, check_strategy, choose
from quickstudy.inner.memory import split
from quickstudy.inner.threads import each_task
from quickstudy.inner.twice import attention_by_math
from quickstudy.nets import native
from quickstudy.tasks.task import Task

M = TypeVar("M", bound=nn.Module)
Function = Callable[[M, Task], dict[str, Tensor]]
"""Of a module and one task, to named tensors."""
REFUSED = {
    r"\.item\(\)": "it takes a number out of a tensor, by .item() or float()",
    r"data-dependent control flow": "it decides by a tensor's values, as with `if`",
    r"boolean mask|dynamic shape": "how much it computes depends on values, as with a mask for an index",
    r"Batching rule not implemented for aten::(\w+)": r"it uses \1, for which torch has no rule",
    r"broadcast shape|inplace arithmetic": "it writes to a tensor that is the same for all tasks",
    r"escaped from inside": "it keeps tensors past the call of it, as torch.utils.checkpoint does",
    r"data pointer": "it hands a tensor to NumPy or Python, as by .numpy() or .tolist()",
}
"""What torch says of what it cannot vectorise, and what that means."""
INPUTS = 2**21
"""Numbers a net is given at once where no graph is kept: what it makes of them takes memory."""


def map_tasks(
    function: Function[M], module: M, batch: Task, strategy: Strategy = "auto"
) -> dict[str, Tensor]:
    """`function(module, task)` of each task of a batch, its named tensors stacked along a first dimension T.

    Raises:
        UserError: the function does what vmap cannot, or the module is not one for threads.

    >>> from quickstudy.tasks.regression import Lines
    >>> import numpy as np
    >>> batch = Lines(shot=3).batch(np.arange(4))
    >>> map_tasks(lambda net, task: {"z": net(task.support.x)}, nn.Linear(1, 2), batch, "vmap")["z"].shape
    torch.Size([4, 3, 2])
    """
    check_strategy(strategy)
    check_some(batch)
    if strategy == "auto":
        what = getattr(function, "__code__", function)
        strategy = choose(lambda tasks, how: map_tasks(function, module, tasks, how), module, batch, what)
    if vectorisable(batch, strategy):
        inputs = batch.support.x[0].numel() + batch.query.x[0].numel()
        most = len(batch.support.x) if torch.is_grad_enabled() else max(1, INPUTS // max(1, inputs))
        found = [_vectorised(function, module, part) for part in split(batch, most)]
        return {k: torch.cat([part[k] for part in found]) for k in found[0]}
    results = list(each_task(function, module, batch, threads=None if strategy == "threads" else 1))
    return {k: torch.stack([r[k] for r in results]) for k in results[0]}


def check_some(batch: Task) -> None:
    """Refuse a batch of no tasks."""
    if not len(batch.support.x):
        raise UserError("a batch of no tasks")


def _vectorised(
    function: Callable[[M, Task], dict[str, Tensor]], module: M, batch: Task
) -> dict[str, Tensor]:
    def call(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return function(module, batch.with_tensors(tensors))

    with (
        vectorising_explained(lambda: function(module, next(batch.unbatch()))),
        native.all_processors(module),
        attention_by_math(),  # the fused kernel is no map's
    ):
        # "different": dropout draws anew for each task
        return torch.func.vmap(call, randomness="different")(batch.tensors())


@contextmanager
def vectorising_explained(alone: Callable[[], object]) -> Iterator[None]:
    """Say of what torch cannot do with all tasks at once within this block why, and what to use instead.

    Args:
        alone: the same with one task; what fails there too has its own error.

    Raises:
        UserError: torch cannot.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        alone()
        raise UserError(
            f"the net cannot be vectorised over tasks: {why_not(error)}; "
            'use strategy="loop" or "threads" (--strategy)'
        ) from error


def why_not(error: RuntimeError) -> str:
    """What a net does that vmap cannot, from what torch says of it.

    >>> why_not(RuntimeError("Batching rule not implemented for aten::lstm.input. We could not"))
    'it uses lstm, for which torch has no rule'
    """
    for pattern, words in REFUSED.items():
        if found := re.search(pattern, str(error)):
            return found.expand(words)
    return f"torch says {str(error).partition(chr(10))[0]!r}"


def vectorisable(batch: Task, strategy: Strategy) -> bool:
    """Whether the tasks are mapped all at once: by vmap, and where they are of one size. What is compiled is
    mapped so too, and where nothing is trained it is just vmap's."""
    return strategy in ("vmap", "compile") and not batch.padded
