"""What is measured of some kinds of learners besides: accuracy by inner step, or by presentation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from quickstudy.evaluation.by_step import Course, by_step
from quickstudy.evaluation.evaluate import normalising
from quickstudy.evaluation.presentations import Presentations, by_presentation, foresees
from quickstudy.inner.choice import Strategy
from quickstudy.learners.base import Learner
from quickstudy.learners.descent import DescentLearner
from quickstudy.learners.stream import StreamLearner
from quickstudy.tasks.sampler import ClassTasks

FEW = 40
"""Tasks on which accuracy is measured after each number of inner steps."""
MOST = 10
"""Presentations of a class in a stream, where there are as many examples."""


@dataclass(frozen=True)
class Particulars:
    """What was found.

    Args:
        course: of a learner that descends, by inner step.
        presentations: of one that reads a stream, at the first presentation of a class, the second, …
    """

    course: Course | None = None
    presentations: Presentations | None = None

    def json(self) -> dict[str, Any]:
        """The numbers as JSON, as part of an evaluation's."""
        found: dict[str, Any] = {}
        if self.course is not None:
            found["by_step"] = {
                count: {"accuracy": m.mean("accuracy"), "ci95": m.ci95("accuracy"), "tasks": m.tasks}
                for count, m in self.course.items()
            }
        if self.presentations is not None:
            found["presentations"] = self.presentations.json()
        return found


def particulars(
    learner: Learner,
    source: ClassTasks,
    n_tasks: int,
    *,
    statistics: str | None = None,
    strategy: Strategy | None = None,
    progress: bool = False,
) -> Particulars:
    """Measure what this kind of learner is looked at for; nothing for most.

    Args:
        learner: left as it was.
        source: tasks over classes.
        n_tasks: how many at most.
        statistics: normalise by these instead of the learner's own way.
        strategy: how tasks are mapped; by default as the learner states in `outer`.
        progress: show a bar on standard error.
    """
    with normalising(learner, statistics):
        if isinstance(learner, DescentLearner):
            few = min(n_tasks, FEW)
            return Particulars(course=by_step(learner, source, few, strategy=strategy, progress=progress))
        if isinstance(learner, StreamLearner) and not foresees(learner):
            again = min(MOST, int(source.data.counts.min())) - 1
            streams = replace(source, shot=1, query=max(1, again))
            shown = by_presentation(learner, streams, n_tasks, strategy=strategy, progress=progress)
            return Particulars(presentations=shown)
    return Particulars()
