"""Tasks side by side: each processor thread adapts to a task of its own, instead of all sharing one task.

A task's tensors are small, so splitting each operation over the processors gains little; tasks need nothing
of each other. Results come in the order of tasks, so sums are those of a loop, bit for bit.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import cache
from queue import SimpleQueue
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn

from quickstudy.errors import UserError
from quickstudy.inner.twice import attention_by_math
from quickstudy.tasks.task import Task

M = TypeVar("M", bound=nn.Module)
R = TypeVar("R")
_quiet: WeakKeyDictionary[nn.Module, dict[object, bool]] = WeakKeyDictionary()
"""Whether modules were seen to draw nothing from torch's generator, by their layers' modes and rates."""


def each_task(
    function: Callable[[M, Task], R], module: M, batch: Task, *, threads: int | None = None
) -> Iterator[R]:
    """`function(module, task)` of each task, in order.

    The first task of all is computed once more, beforehand, to see whether the module draws from torch's
    generator, as dropout does: whose turn it is to draw would then be a matter of chance, so such a module
    stays in the loop. The first batch is computed as all others: how many threads share an operation may
    change its rounding.

    Args:
        threads: how many tasks at once; by default torch's number of threads, and 1 is a plain loop.

    Raises:
        UserError: the module cannot be copied, or draws now though it did not before.

    >>> from quickstudy.tasks.regression import Lines
    >>> import numpy as np
    >>> batch = Lines(shot=3).batch(np.arange(4))
    >>> list(each_task(lambda net, task: net(task.support.x).shape, nn.Linear(1, 1), batch))[0]
    torch.Size([3, 1])
    """
    threads = torch.get_num_threads() if threads is None else threads
    # What torch keeps for each thread by itself is not handed on.
    special = torch.is_inference_mode_enabled() or torch.is_autocast_enabled("cpu")
    if threads < 2 or len(batch.support.x) < 2 or special:
        yield from (function(module, task) for task in batch.unbatch())
        return
    before, known = torch.get_rng_state(), _quiet.setdefault(module, {})
    modes = tuple((layer.training, getattr(layer, "p", None)) for layer in module.modules())
    if modes not in known:
        function(module, next(batch.unbatch()))
        known[modes] = torch.equal(before, torch.get_rng_state())
        torch.set_rng_state(before)
    if not known[modes]:
        yield from (function(module, task) for task in batch.unbatch())
        return
    with attention_by_math():
        yield from _side_by_side(function, module, batch, threads)
    if not torch.equal(before, torch.get_rng_state()):
        raise UserError('the net draws by chance in some tasks only: use strategy="loop" (--strategy loop)')


def _side_by_side(function: Callable[[M, Task], R], module: M, batch: Task, threads: int) -> Iterator[R]:
    """`function` of each task in a pool of threads, each with a replica of its own."""
    replicas: SimpleQueue[M] = SimpleQueue()
    for _ in range(threads):
        replicas.put(replica(module))
    grad, context, shared = torch.is_grad_enabled(), copy_context(), torch.get_num_threads()

    def one(task: Task) -> R:
        mine = replicas.get()
        if torch.get_num_threads() != 1:
            torch.set_num_threads(1)  # of this thread: it computes by itself
        try:
            with torch.set_grad_enabled(grad):
                return context.copy().run(function, mine, task)
        finally:
            replicas.put(mine)

    pool = _pool(threads, os.getpid())
    waiting: list[Future[R]] = [pool.submit(one, task) for task in batch.unbatch()]
    try:
        while waiting:
            yield waiting.pop(0).result()
    finally:  # a mistake, or Ctrl-C: nothing goes on behind one's back
        for future in waiting:
            future.cancel()
        for future in waiting:
            if not future.cancelled():
                future.exception()
        torch.set_num_threads(shared)  # threads that begin later get what was set last, in whichever


def replica(module: M) -> M:
    """A copy that shares parameters and buffers, for a thread of its own.

    `functional_call` puts other weights into a module while it runs, so no two threads may run the same one.

    Raises:
        UserError: it holds what cannot be copied.

    >>> net = nn.Linear(2, 1)
    >>> replica(net).weight.data_ptr() == net.weight.data_ptr()
    True
    """
    shared: dict[int, object] = {id(b): b for b in module.buffers()}
    for p in module.parameters():
        shared[id(p)] = nn.Parameter(p.detach(), p.requires_grad)
    try:
        return copy.deepcopy(module, shared)
    except (TypeError, RuntimeError) as error:
        raise UserError(
            f"{type(module).__name__} cannot be copied for a thread of its own ({error}): "
            'use strategy="loop" (--strategy loop)'
        ) from error


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads that are kept, for what a thread allocates it keeps too; a forked process has its own."""
    return ThreadPoolExecutor(threads, "quickstudy-task")
