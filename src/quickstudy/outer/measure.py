"""The measuring loop: the metrics of many tasks, their mean and its 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from quickstudy.errors import TaskError
from quickstudy.inner.choice import Strategy
from quickstudy.inner.mapping import map_tasks
from quickstudy.learners.base import Learner
from quickstudy.learners.calling import explained
from quickstudy.nets import native
from quickstudy.outer.device import suited
from quickstudy.outer.distributed import world
from quickstudy.tasks.task import Task, TaskSource

L = TypeVar("L", bound=Learner)


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


def collect(
    learner: L,
    source: TaskSource,
    n_tasks: int,
    function: Callable[[L, Task], dict[str, Tensor]],
    take: Callable[[Task, dict[str, Tensor]], None],
    *,
    strategy: Strategy | None = None,
    chunk: int = 20,
) -> None:
    """Map a function over tasks 0 … n_tasks - 1, the learner in evaluation; no graph outlives a step.

    Of many processes each goes over its share of the tasks; `World.gathered` brings what they found together.

    Args:
        function: from the learner and one task to named tensors.
        take: is given each batch of tasks with what the function made of them; tasks that differ in size
            come one by one.

    Raises:
        TaskError: fewer than one task is asked for, or more than there are.
    """
    if n_tasks < 1:
        raise TaskError(f"at least 1 task is needed to measure, not {n_tasks}")
    if isinstance(source, Sized) and n_tasks > len(source):
        raise TaskError(f"{n_tasks} tasks are asked for, but there are {len(source)}")
    if n_tasks >= native.LONG:
        native.build()
    own = world().share(n_tasks)
    for start in range(own.start, own.stop, chunk):
        batch = suited(source.batch(np.arange(start, min(start + chunk, own.stop))), learner)
        if batch.support.x.shape[1] == 0:
            raise TaskError("these tasks have no support set: there is nothing to adapt to")
        for part in stackable(batch):
            with (
                explained(part.support.x.shape[2:]),
                learner.in_use(),
                torch.no_grad(),
            ):  # in between, other threads have their turn
                found = map_tasks(function, learner, part, strategy or learner.outer.strategy)
            take(part, found)


def stackable(batch: Task) -> Iterator[Task]:
    """The batch; or, where it is padded and so its tasks differ in size, batches of one."""
    if not batch.padded:
        yield batch
        return
    for task in batch.unbatch():
        yield task.with_tensors({k: v[None] for k, v in task.tensors().items()})


def worth(means: Mapping[str, float]) -> float:
    """What weights and settings are chosen by, of the means of all metrics: the accuracy; of real targets the
    log-likelihood, where it is stated, and minus the loss where it is not.

    >>> worth({"loss": 0.4, "accuracy": 0.8}), worth({"loss": 0.4})
    (0.8, -0.4)
    """
    return means.get("accuracy", means.get("log_likelihood", -means["loss"]))


def measure(
    learner: Learner,
    source: TaskSource,
    n_tasks: int,
    *,
    strategy: Strategy | None = None,
    chunk: int = 20,
) -> Measurement:
    """Adapt to tasks 0 … n_tasks - 1 and collect their metrics, the same in every process.

    Args:
        strategy: how tasks are mapped; by default as the learner states in `outer`.
        chunk: tasks that are mapped at once.

    Raises:
        TaskError: fewer than one task is asked for, or more than there are.
    """
    parts: list[dict[str, Tensor]] = []

    def judge(learner: Learner, task: Task) -> dict[str, Tensor]:
        return dict(learner.judge(task).metrics)

    def take(batch: Task, metrics: dict[str, Tensor]) -> None:
        parts.append({k: v.cpu() for k, v in metrics.items()})

    collect(learner, source, n_tasks, judge, take, strategy=strategy, chunk=chunk)
    parts = world().gathered(parts)
    return Measurement({k: torch.cat([p[k] for p in parts]) for k in parts[0]})
