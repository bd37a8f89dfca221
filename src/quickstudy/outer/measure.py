"""The measuring loop: the metrics of many tasks, their mean and its 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from quickstudy.errors import TaskError
from quickstudy.inner.mapping import Strategy, map_tasks
from quickstudy.learners.base import Learner
from quickstudy.tasks.task import Task, TaskSource


@dataclass(frozen=True, eq=False)
class Measurement:
    """Each task's metrics `[tasks]`.

    Example:
        >>> m = Measurement({"accuracy": torch.tensor([0.5, 1.0, 0.75, 0.75])})
        >>> round(m.mean("accuracy"), 3), round(m.ci95("accuracy"), 3)
        (0.75, 0.2)
    """

    values: dict[str, Tensor]

    @property
    def tasks(self) -> int:
        """How many tasks."""
        return len(next(iter(self.values.values())))

    def mean(self, name: str) -> float:
        """The mean over tasks."""
        return float(self.values[name].double().mean())

    def ci95(self, name: str) -> float:
        """Half the width of the 95 % interval of the mean: 1.96 standard deviations / √tasks."""
        if self.tasks < 2:
            return math.inf
        return 1.96 * float(self.values[name].double().std()) / math.sqrt(self.tasks)


def judge(learner: Learner) -> Callable[[Task], dict[str, Tensor]]:
    """The function that is mapped: a task's metrics."""
    return lambda task: learner.judge(task).metrics


def measure(
    learner: Learner,
    source: TaskSource,
    n_tasks: int,
    *,
    strategy: Strategy | None = None,
    chunk: int = 20,
    function: Callable[[Task], dict[str, Tensor]] | None = None,
    tick: Callable[[int], None] = lambda done: None,
) -> Measurement:
    """Adapt to tasks 0 … n_tasks - 1 and collect their metrics; no second-order graph is ever built.

    Args:
        strategy: how tasks are mapped; by default as the learner states in `outer`.
        chunk: tasks that are mapped at once.
        function: what to collect from a task instead of its metrics.
        tick: called with the number of tasks done, for a progress display.

    Raises:
        TaskError: fewer than one task is asked for.
    """
    if n_tasks < 1:
        raise TaskError(f"at least 1 task is needed to measure, not {n_tasks}")
    was_training = learner.training
    learner.eval()
    parts: list[dict[str, Tensor]] = []
    try:
        with torch.no_grad():
            for start in range(0, n_tasks, chunk):
                batch = source.batch(np.arange(start, min(start + chunk, n_tasks)))
                parts.append(map_tasks(function or judge(learner), batch, strategy or learner.outer.strategy))
                tick(min(start + chunk, n_tasks))
    finally:
        learner.train(was_training)
    return Measurement({k: torch.cat([p[k] for p in parts]) for k in parts[0]})
