"""Accuracy, or error, after each number of inner steps: also beyond those that a learner was trained with."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quickstudy.errors import UserError
from quickstudy.evaluation.evaluate import progress_bar
from quickstudy.evaluation.style import BLUE, GREY, INK, PERCENT, axes_in, figure_of, save
from quickstudy.inner.choice import Strategy
from quickstudy.inner.problem import InnerProblem, take_step, taking_steps
from quickstudy.inner.rules import Params
from quickstudy.inner.solve import solve
from quickstudy.learners.base import Learner
from quickstudy.learners.descent import Descent, DescentLearner
from quickstudy.learners.predictor import Predictor
from quickstudy.outer.distributed import world
from quickstudy.outer.measure import Measurement, collect
from quickstudy.tasks.task import Support, Task, TaskSource

Course = dict[int, Measurement]
"""What was reached by inner step."""
STEPS = (0, 1, 2, 3, 5, 7, 10, 15, 20, 30, 50)


@contextmanager
def stepping(learner: DescentLearner, steps: int) -> Iterator[None]:
    """The learner taking so many inner steps in use; afterwards as many as before."""
    before = learner.test_steps
    learner.test_steps = steps
    try:
        yield
    finally:
        learner.test_steps = before


def by_step(
    learner: Learner,
    source: TaskSource,
    n_tasks: int = 100,
    steps: Sequence[int] = STEPS,
    *,
    strategy: Strategy | None = None,
    chunk: int = 20,
    progress: bool = False,
) -> Course:
    """What `learner` reaches on the same tasks after each of these numbers of inner steps.

    Args:
        learner: one that descends; left as it was.
        source: its tasks 0 … n_tasks - 1 are used.
        strategy: how tasks are mapped; by default as the learner states in `outer`.
        chunk: tasks that are mapped at once.
        progress: show a bar on standard error.

    Raises:
        UserError: the learner takes no inner steps.

    Example:
        >>> from quickstudy.learners import MAML
        >>> from quickstudy.nets import mlp
        >>> from quickstudy.tasks import Sinusoids
        >>> found = by_step(MAML(mlp(1), way=1, inner_lr=0.01), Sinusoids(), n_tasks=4, steps=(0, 2))
        >>> sorted(found), found[2].tasks
        ([0, 2], 4)
    """
    if not isinstance(learner, DescentLearner):
        raise UserError(f"{type(learner).__name__} takes no inner steps")
    parts: list[dict[str, Tensor]] = []
    with progress_bar(progress) as bar, stepping(learner, max(steps)):
        shown = bar.add_task("by inner step", total=len(world().share(n_tasks)), note="")

        def take(batch: Task, found: dict[str, Tensor]) -> None:
            parts.append({k: v.cpu() for k, v in found.items()})
            bar.update(shown, advance=len(batch.support.x))

        judge = partial(judged_by_step, counts=steps)
        collect(learner, source, n_tasks, judge, take, strategy=strategy, chunk=chunk)
    parts = world().gathered(parts)
    found: dict[int, dict[str, Tensor]] = {count: {} for count in steps}
    for name in parts[0]:
        count, _, metric = name.partition(" ")
        found[int(count)][metric] = torch.cat([part[name] for part in parts])
    return {count: Measurement(values) for count, values in found.items()}


def judged_by_step(learner: DescentLearner, task: Task, counts: Sequence[int]) -> dict[str, Tensor]:
    """One task's metrics after each of these numbers of steps, in one descent: "5 accuracy" and so on."""
    found = {}

    def judge(count: int, predictor: Predictor) -> None:
        metrics = learner.judged(predictor, task.query).metrics
        found.update({f"{count} {name}": value for name, value in metrics.items()})

    descended(learner, task.support, counts, judge)
    return found


def descended(
    learner: DescentLearner,
    support: Support,
    counts: Container[int],
    look: Callable[[int, Predictor], object],
) -> None:
    """One descent, in which `look` is given the predictor after each of these numbers of steps."""
    loop = Descent(learner, support)

    def seen(count: int, params: Params) -> None:
        if count in counts:
            look(count, learner.predictor(support, loop.weights(params), loop.moments(params)))

    def step(
        problem: InnerProblem, params: Params, state: Any, step: int, create_graph: bool
    ) -> tuple[Tensor, Params, Any]:
        seen(step, params)
        with taking_steps(None):
            return take_step(problem, params, state, step, create_graph)

    with taking_steps(step):
        end = solve(loop.problem(), learner.way_back())
    seen(len(end.losses), end.params)


def steps_picture(found: Course, trained: int, path: str | Path) -> None:
    """Draw accuracy, or the mean squared error, by inner step with its 95 % band.

    Args:
        found: as `by_step` measures it.
        trained: inner steps of meta-training, which are marked.
        path: the PNG to write.
    """
    kind = "accuracy" if "accuracy" in next(iter(found.values())).values else "loss"
    x = list(found)
    y = [found[count].mean(kind) for count in x]
    band = [found[count].ci95(kind) for count in x]
    figure = figure_of(5.4, 3.6)
    tasks = next(iter(found.values())).tasks
    title = f"{'Accuracy' if kind == 'accuracy' else 'Mean squared error'} by inner step ({tasks} tasks)"
    axes = axes_in(figure, title=title, xlabel="inner steps")
    low, high = ([a + side * b for a, b in zip(y, band, strict=True)] for side in (-1, 1))
    axes.fill_between(x, low, high, color=BLUE, alpha=0.16, linewidth=0)
    axes.plot(x, y, color=BLUE, marker="o", markersize=3.5, linewidth=1.7)
    axes.axvline(trained, color=GREY, linestyle="--", linewidth=1)
    note, above = f"trained with {trained}", ("data", "axes fraction")
    axes.annotate(note, (trained, 1.01), xycoords=above, color=INK, fontsize=9, ha="left", va="bottom")
    if kind == "accuracy":
        axes.yaxis.set_major_formatter(PERCENT)
    else:
        axes.set_ylim(bottom=0)
    save(figure, path)
