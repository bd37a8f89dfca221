"""The copy task of Graves et al. 2014, arXiv 1410.5401: random bits are shown, then asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from quickstudy.errors import TaskError
from quickstudy.tasks.chance import uniforms
from quickstudy.tasks.sizes import Count, Range
from quickstudy.tasks.task import Query, Support, Task


@dataclass(frozen=True)
class CopyTasks:
    """Task i is a sequence of bits, the support set's targets, which are to be said again for blank queries.

    Args:
        length: of the sequence, or (shortest, longest), drawn for `group` tasks at a time.
        bits: of each element.
        group: tasks in a row that are of one length, so that they can be mapped at once.
        growing: tasks over which the longest length grows from the shortest; then it stays.
        seed: which sequence of tasks.

    Raises:
        TaskError: a number below 1, or the longest first.

    >>> task = CopyTasks(length=4).batch(np.arange(2))
    >>> task.support.x.shape, task.query.x.shape, bool((task.support.x == task.query.y).all())
    (torch.Size([2, 4, 8]), torch.Size([2, 4, 1]), True)
    """

    length: Count = (1, 20)
    bits: int = 8
    group: int = 1
    growing: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for word in ("length", "bits", "group"):
            Range.of(word, getattr(self, word), 1)

    def batch(self, indices: np.ndarray) -> Task:
        """Sequences `[T, L, bits]`, both as examples and as what is asked for, and blanks `[T, L, 1]`.

        Raises:
            TaskError: tasks of several lengths.
        """
        indices = np.asarray(indices)
        low, high = Range.of("length", self.length, 1)
        group = indices // self.group
        grown = np.minimum(1.0, group * self.group / self.growing) if self.growing else 1.0
        lengths = low + (uniforms(self.seed, 0, group, 1)[:, 0] * (grown * (high - low) + 1)).astype(np.int64)
        if (lengths != lengths[0]).any():
            raise TaskError(f"sequences of several lengths: ask for those of one group of {self.group}")
        n = int(lengths[0])
        drawn = uniforms(self.seed, 1, indices, n * self.bits).reshape(-1, n, self.bits)
        x = torch.from_numpy(drawn < 0.5).float()
        return Task(Support(x, x), Query(x.new_zeros(len(x), n, 1), x))

    def describe(self) -> dict[str, object]:
        """Lengths, bits and seed."""
        return {"data": "copy", "length": self.length, "bits": self.bits, "seed": self.seed}
