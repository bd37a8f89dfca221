"""Which strategy maps tasks fastest: a rule of the device and of how much each operation has to do.

An operation costs some microseconds before it computes anything. Where a task's operations are small, all
tasks share one such cost by vmap; where they are large, processors are best used by a task each. The native
kernels do both: one operation for all tasks, a task for each processor. The rule measures sizes, not times,
so the same run chooses the same on the same machine. Compiling takes most of a minute: it is for long runs,
and on a processor not for convolutions by weights of each task's own, which it makes slower, in minutes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Literal, get_args
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from quickstudy.errors import UserError, unknown
from quickstudy.inner.memory import CHANGES
from quickstudy.inner.precision import precision_now
from quickstudy.inner.settings import settings
from quickstudy.inner.threads import replica
from quickstudy.nets import native
from quickstudy.tasks.task import Task

Strategy = Literal["auto", "loop", "threads", "vmap", "compile"]
SMALL = 100_000.0
"""Numbers an operation of one task makes on average, below which operations of many tasks are joined."""
SMALL_CONVOLUTIONS = 40_000.0
"""The same for nets with convolutions, which keep a processor busy sooner."""
LONG = 5_000_000
"""Operations of one task, over all meta-steps, from which on it pays to compile them: a minute or two's."""
_chosen: WeakKeyDictionary[nn.Module, dict[object, Strategy]] = WeakKeyDictionary()


def choose(
    attempt: Callable[[Task, Strategy], object],
    module: nn.Module,
    batch: Task,
    what: object = None,
    meta_steps: int = 0,
) -> Strategy:
    """The strategy for these tasks: vmap on a GPU, for small operations and native kernels, else threads or
    a loop; and in a long run compiled, where it would be vmap without native kernels and, on a processor,
    without convolutions by weights of each task's own.

    Args:
        attempt: what is to be done with some tasks by some strategy. It is done once with one task, and once
            with two by vmap, for a net may do what vmap cannot.
        module: chosen for once, for tasks of one size, in training and in use.
        what: tells things to be done with the same module apart.
        meta_steps: how many are to come.

    >>> from quickstudy.inner.mapping import map_tasks
    >>> from quickstudy.tasks.regression import Lines
    >>> import numpy as np
    >>> net, batch = nn.Linear(1, 2), Lines(shot=3).batch(np.arange(4))
    >>> choose(lambda tasks, how: map_tasks(lambda n, t: {"z": n(t.support.x)}, net, tasks, how), net, batch)
    'vmap'
    """
    on_gpu = batch.support.x.is_cuda  # where operations are side by side by themselves
    several = torch.get_num_threads() > 1 and not on_gpu
    sizes = tuple(tuple(v.shape[1:]) for v in batch.tensors().values())
    joinable = not batch.padded and len(batch.support.x) > 1
    served = native.serve(module)
    state = (settings(module), torch.is_grad_enabled(), several, on_gpu, served, precision_now())
    key = (what, sizes if joinable else None, meta_steps, *state)
    known = _chosen.setdefault(module, {})
    if key not in known and len(known) < CHANGES:
        singly: Strategy = "threads" if several and can_be_copied(module) else "loop"
        with torch.random.fork_rng([batch.support.x.device] if on_gpu else []):  # what is drawn is put back
            one, two = Count(), Count()
            if joinable and not served:
                with one:
                    attempt(first(batch, 1), "loop")
            small = SMALL_CONVOLUTIONS if one.groups else SMALL
            join = joinable and (on_gpu or served or one.numbers_an_operation < small)
            if join:
                with two:
                    join = possible(lambda: attempt(first(batch, 2), "vmap"))
            pays = one.operations * meta_steps >= LONG and (on_gpu or two.groups < 2)
            known[key] = singly if not join else "compile" if pays else "vmap"
    return known.get(key, next(reversed(known.values())))


def check_strategy(strategy: str) -> None:
    """Refuse what is no strategy.

    Raises:
        UserError: it is none.

    >>> check_strategy("vmap")
    """
    if strategy not in get_args(Strategy):
        raise unknown("strategy", strategy, get_args(Strategy))


def can_be_copied(module: nn.Module) -> bool:
    """Whether there can be a copy of a module for each thread."""
    try:
        replica(module)
    except UserError:
        return False
    return True


def first(batch: Task, count: int) -> Task:
    """The first tasks of a batch."""
    return batch.with_tensors({k: v[:count] for k, v in batch.tensors().items()})


def possible(attempt: Callable[[], object]) -> bool:
    """Whether this can be done, and by vmap itself: it warns where it falls back to a loop."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "There is a performance drop")
            attempt()
    except (UserError, Warning):
        return False
    return True


class Count(TorchDispatchMode):
    """Counts the operations within this block and the numbers they make, and notes the most groups of a
    convolution's: a map makes one of as many groups as there are tasks where each has weights of its own.

    >>> x = torch.ones(10)
    >>> with Count() as count:
    ...     y = (x + 1).sum()
    >>> count.operations, count.numbers_an_operation
    (2, 5.5)
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.numbers = 0
        self.groups = 0

    @property
    def numbers_an_operation(self) -> float:
        """How many numbers an operation makes, on average."""
        return self.numbers / max(self.operations, 1)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = result if isinstance(result, (tuple, list)) else (result,)
        self.operations += 1
        if func is torch.ops.aten.convolution.default:
            self.groups = max(self.groups, args[-1])
        self.numbers += sum(v.numel() for v in made if isinstance(v, Tensor))
        return result
