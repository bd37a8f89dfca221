"""How much memory graphs hold, and so how many tasks are mapped at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from quickstudy.tasks.task import Task

GRAPHS = 2**30
"""Bytes that the graphs of the tasks that are mapped at once may hold."""
_held: WeakKeyDictionary[nn.Module, dict[object, int]] = WeakKeyDictionary()


def held_by_graph(make: Callable[[], object], there: Iterable[Tensor] = ()) -> int:
    """The bytes that the graph of what is made holds on to, besides tensors that are there without it.

    >>> w = torch.ones(100, requires_grad=True)
    >>> held_by_graph(lambda: (w * 2).exp().sum(), [w])
    400
    """
    known = {v.untyped_storage().data_ptr() for v in there}
    held: dict[int, torch.UntypedStorage] = {}  # held on to, so that no address is used twice

    def note(v: Tensor) -> Tensor:
        storage = v.untyped_storage()
        if storage.data_ptr() not in known:
            held[storage.data_ptr()] = storage
        return v

    with torch.autograd.graph.saved_tensors_hooks(note, lambda v: v):
        made = make()
    del made
    return sum(storage.nbytes() for storage in held.values())


def portions(run: Callable[[Task], object], module: nn.Module, batch: Task) -> Iterator[Task]:
    """The tasks of a batch in portions of nearly one size, whose graphs together hold no more than `GRAPHS`.

    Args:
        run: what makes the graph of a task; it is done once for each size of tasks.
        module: what it is done with.
    """
    key = (module.training, *(tuple(v.shape[1:]) for v in batch.tensors().values()))
    known = _held.setdefault(module, {})
    if key not in known:
        cuda = [batch.support.x.device] if batch.support.x.is_cuda else []
        with torch.random.fork_rng(cuda):  # what is drawn is put back
            known[key] = held_by_graph(lambda: run(next(batch.unbatch())), module.parameters())
    at_once = max(1, GRAPHS // max(1, known[key]))
    yield from split(batch, at_once)


def split(batch: Task, most: int) -> Iterator[Task]:
    """The tasks of a batch in order, in parts of nearly one size, of no more tasks than `most`.

    >>> from quickstudy.tasks.regression import Lines
    >>> import numpy as np
    >>> [len(part.query.x) for part in split(Lines(shot=3).batch(np.arange(7)), most=3)]
    [2, 2, 3]
    """
    tasks = len(batch.support.x)
    count = -(-tasks // most)
    for i in range(count):
        part = slice(i * tasks // count, (i + 1) * tasks // count)
        yield batch.with_tensors({k: v[part] for k, v in batch.tensors().items()})
