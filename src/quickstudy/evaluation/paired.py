"""Whether one learner is better than another: both on the same tasks, and the interval of the difference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from quickstudy.errors import UserError


class Difference(NamedTuple):
    """The mean of first minus second over tasks, and half the width of its 95 % interval."""

    mean: float
    ci95: float
    tasks: int

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return abs(self.mean) > self.ci95


def paired(first: Sequence[float], second: Sequence[float]) -> Difference:
    """The difference of two learners' accuracies on the same tasks, 1.96 standard deviations of the tasks'
    differences / √tasks.

    Tasks differ far more than learners do: what makes a task hard is hard for both, and is left out of the
    difference, so that this interval is narrower than those of the two accuracies suggest.

    Args:
        first, second: by task, in the same order.

    Raises:
        UserError: other numbers of tasks, or fewer than two.

    >>> paired([0.6, 0.8, 1.0], [0.5, 0.7, 0.9])
    Difference(mean=0.1, ci95=0.0, tasks=3)
    """
    n = len(first)
    if n != len(second):
        raise UserError(f"{n} tasks beside {len(second)}: only the same tasks can be compared")
    if n < 2:
        raise UserError(f"a difference has an interval from 2 tasks on, not from {n}")
    gaps = [a - b for a, b in zip(first, second, strict=True)]
    mean = math.fsum(gaps) / n
    variance = math.fsum((gap - mean) ** 2 for gap in gaps) / (n - 1)
    return Difference(round(mean, 12), round(1.96 * math.sqrt(variance / n), 12), n)
