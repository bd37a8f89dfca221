"""Accuracy by presentation: how often the k-th example of a class in a stream is known.

The measure of Santoro et al. 2016, arXiv 1605.06065, table 1. At its first presentation nothing was said of a
class yet, so that even the best learner can only rule others out; at its second it was told once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quickstudy.errors import TaskError, UserError
from quickstudy.evaluation.evaluate import progress_bar
from quickstudy.inner.choice import Strategy
from quickstudy.learners.base import Learner
from quickstudy.learners.stream import StreamLearner
from quickstudy.learners.stream import by_presentation as accuracy_by_presentation
from quickstudy.outer.distributed import world
from quickstudy.outer.measure import Measurement, collect
from quickstudy.tasks.task import Task, TaskSource


@dataclass(frozen=True)
class Presentations:
    """What was measured on `tasks` streams.

    Args:
        accuracy: at the first presentation of a class, the second, … from 0 to 1.
        ci95: half the width of the 95 % interval of each.

    >>> print(Presentations((0.36, 0.83), (0.01, 0.02), tasks=600))
    1st 36.0 ± 1.0, 2nd 83.0 ± 2.0 %
    """

    accuracy: tuple[float, ...]
    ci95: tuple[float, ...]
    tasks: int

    def json(self) -> dict[str, Any]:
        """The numbers as JSON."""
        return asdict(self)

    def __str__(self) -> str:
        pairs = zip(self.accuracy, self.ci95, strict=True)
        return (
            ", ".join(f"{nth(k)} {100 * a:.1f} ± {100 * c:.1f}" for k, (a, c) in enumerate(pairs, 1)) + " %"
        )


def nth(k: int) -> str:
    """A number as a place in a row.

    >>> [nth(k) for k in (1, 2, 3, 4, 11, 12, 21)]
    ['1st', '2nd', '3rd', '4th', '11th', '12th', '21st']
    """
    ending = {1: "st", 2: "nd", 3: "rd"}.get(k % 10, "th")
    return f"{k}th" if k % 100 in (11, 12, 13) else f"{k}{ending}"


@dataclass(frozen=True, eq=False)
class Prepared:
    """Tasks for which a learner's chance is drawn as well, a function of the task's number alone."""

    source: TaskSource
    learner: Learner

    def batch(self, indices: np.ndarray) -> Task:
        """The tasks with these numbers `[T]`, prepared."""
        batch = self.source.batch(indices)
        drawn: list[Mapping[str, Tensor]] = []
        for t, index in enumerate(indices.tolist()):
            one = batch.with_tensors({k: v[t : t + 1] for k, v in batch.tensors().items()})
            drawn.append(self.learner.prepare(one, torch.Generator().manual_seed(index)).extra)
        return replace(batch, extra={k: torch.cat([extra[k] for extra in drawn]) for k in drawn[0]})

    def describe(self) -> dict[str, object]:
        """What the source says of its tasks."""
        return self.source.describe()


def foresees(learner: Learner) -> bool:
    """Whether what a learner says of one picture depends on all of its stream, later ones too."""
    return bool(learner.norms()) and learner.statistics != "running"


def by_presentation(
    learner: Learner,
    source: TaskSource,
    n_tasks: int = 1000,
    *,
    strategy: Strategy | None = None,
    chunk: int = 20,
    progress: bool = False,
) -> Presentations:
    """Show a learner streams of unseen classes, and score what it says before it is told.

    Args:
        learner: one that reads a stream (mann, lstm); left as it was.
        source: tasks over classes; support and query set are one stream of shot + query presentations.
        n_tasks: how many streams.
        strategy: how tasks are mapped; by default as the learner states in `outer`.
        chunk: tasks that are mapped at once.
        progress: show a bar on standard error.

    Raises:
        UserError: the learner does not read a stream, or normalises a picture by others, later ones too.
        DataError: tasks without classes.
        TaskError: fewer than one task, or of different sizes.

    Example:
        >>> print(by_presentation(learner, qs.tasks(test, way=5, shot=1, query=9)))  # doctest: +SKIP
        1st 36.1 ± 0.4, 2nd 90.2 ± 0.5, 3rd 93.4 ± 0.4, …
    """
    if not isinstance(learner, StreamLearner):
        raise UserError(f"{type(learner).__name__} does not read a stream: mann and lstm do")
    if foresees(learner):
        raise UserError(
            f"with {learner.statistics} statistics a picture is normalised by later ones too: what is said "
            "of it is no prediction. Train with --norm layer"
        )
    parts: list[Tensor] = []
    with progress_bar(progress) as bar:
        shown = bar.add_task("streams", total=len(world().share(n_tasks)), note="")

        def stream(learner: StreamLearner, task: Task) -> dict[str, Tensor]:
            said, y, _ = learner.stream(task)
            right, way = (said.argmax(-1) == y).to(said.dtype), task.support.ways
            return {"accuracy": accuracy_by_presentation(right, y, way, len(y) // way)}

        def take(batch: Task, found: dict[str, Tensor]) -> None:
            parts.append(found["accuracy"].cpu())  # [T, presentations]
            bar.update(shown, advance=len(batch.support.x))

        collect(learner, Prepared(source, learner), n_tasks, stream, take, strategy=strategy, chunk=chunk)
    everyone = world().gathered(parts)
    if len({part.shape[1] for part in everyone}) > 1:
        raise TaskError("accuracy by presentation needs classes that come equally often in every task")
    accuracy = torch.cat(everyone)
    measured = Measurement({nth(k): column for k, column in enumerate(accuracy.unbind(1), 1)})
    means, widths = ([f(k) for k in measured.values] for f in (measured.mean, measured.ci95))
    return Presentations(tuple(means), tuple(widths), n_tasks)
