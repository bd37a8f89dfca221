"""How much memory graphs hold, and so how many tasks are mapped at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from quickstudy.inner.precision import precision_now
from quickstudy.inner.settings import settings
from quickstudy.tasks.task import Task

GRAPHS = 2**30
"""Bytes that the graphs of the tasks that are mapped at once may hold; on a GPU a quarter of its memory."""
CHANGES = 16
"""Of one learner's options, or of its tasks' sizes, after which none is tried any more."""
_held: WeakKeyDictionary[nn.Module, dict[object, int]] = WeakKeyDictionary()


class Held:
    """The bytes that graphs hold now, and the most they held."""

    def __init__(self, there: Iterable[Tensor]) -> None:
        self.there = {v.untyped_storage().data_ptr() for v in there}
        self.uses: Counter[int] = Counter()
        self.bytes: dict[int, int] = {}
        self.now = self.most = 0

    def besides(self, tensors: Iterable[Tensor]) -> int:
        """The most without these, which a graph held and which live longer than it.

        >>> w, x = torch.ones(100, requires_grad=True), torch.ones(100)
        >>> with held_by_graphs([w]) as held:
        ...     y = (w * x).exp().sum()
        >>> held.most, held.besides([x])
        (800, 400)
        """
        places = {v.untyped_storage().data_ptr() for v in tensors}
        return self.most - sum(self.bytes.get(place, 0) for place in places)


class _Saved:
    """A tensor that a graph keeps for the way back; counted while it lives."""

    counted = False  # a tensor without storage, or without memory of its own, cannot be

    def __init__(self, tensor: Tensor, held: Held) -> None:
        self.tensor, self.held, self.version = tensor.detach(), held, tensor._version
        self.place = tensor.untyped_storage().data_ptr()
        self.bytes = 0 if self.place in held.there else tensor.untyped_storage().nbytes()
        held.uses[self.place] += 1
        held.bytes[self.place] = self.bytes
        if held.uses[self.place] == 1:
            held.now += self.bytes
            held.most = max(held.most, held.now)
        self.counted = True

    def __del__(self) -> None:
        if not self.counted:
            return
        self.held.uses[self.place] -= 1
        if not self.held.uses[self.place]:
            self.held.now -= self.bytes

    def unpacked(self) -> Tensor:
        if self.tensor._version != self.version:  # torch does not look where somebody else keeps a tensor
            raise RuntimeError(
                "a tensor needed for gradient computation was modified by an inplace operation"
            )
        return self.tensor


@contextmanager
def held_by_graphs(there: Iterable[Tensor] = ()) -> Iterator[Held]:
    """Count the bytes that the graphs made within this block hold, besides tensors that are there anyway.

    >>> w = torch.ones(100, requires_grad=True)
    >>> with held_by_graphs([w]) as held:
    ...     y = (w * 2).exp().sum()
    >>> held.most
    400
    """
    held = Held(there)
    with torch.autograd.graph.saved_tensors_hooks(lambda v: _Saved(v, held), _Saved.unpacked):
        yield held


def portions(learner: nn.Module, batch: Task) -> Iterator[Task]:
    """The tasks of a batch in portions of nearly one size, whose graphs together fit a budget: `GRAPHS`.

    One task of each size is tried for that.

    >>> from quickstudy.tasks.regression import Lines
    >>> import numpy as np
    >>> class Mean(nn.Module):
    ...     def forward(self, task):
    ...         return task.support.y.mean()
    >>> [len(part.query.x) for part in portions(Mean(), Lines(shot=3).batch(np.arange(7)))]
    [7]
    """
    x = batch.support.x
    sizes = tuple(tuple(v.shape[1:]) for v in batch.tensors().values())
    key = (sizes, x.dtype, x.device, precision_now(), settings(learner))
    known = _held.setdefault(learner, {})
    if key not in known and len(known) < CHANGES:
        task = next(batch.unbatch())
        tensors = {k: v.clone() for k, v in task.tensors().items()}  # not a part of all tasks' memory
        there = [*learner.parameters(), *learner.buffers(), *tensors.values()]
        with torch.random.fork_rng([x.device] if x.is_cuda else []):  # what is drawn is put back
            try:
                with held_by_graphs(there) as held:
                    learner(task.with_tensors(tensors))
                known[key] = held.most
            except RuntimeError:  # torch.func.grad lets nobody count; and what fails fails once more
                known[key] = 0
    budget = torch.cuda.get_device_properties(x.device).total_memory // 4 if x.is_cuda else GRAPHS
    held_by_one = known.get(key, max(known.values()))
    yield from split(batch, max(1, budget // max(1, held_by_one)))


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
