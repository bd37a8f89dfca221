"""The fit of a regression task, by inner step, with uncertainty where a learner states one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from quickstudy.errors import UserError
from quickstudy.evaluation.by_step import stepping
from quickstudy.evaluation.style import BLUE, COLOURS, GREY, INK, axes_in, figure_of, save
from quickstudy.learners.base import Learner
from quickstudy.learners.descent import DescentLearner
from quickstudy.tasks.task import Task

POINTS = 200


class Fitted(NamedTuple):
    """What a learner answers at p points: the mean `[p, D]` and, where it states one, the deviation."""

    mean: Tensor
    std: Tensor | None


def fits(
    learner: Learner, task: Task, steps: Sequence[int] | None = None
) -> tuple[Tensor, dict[str, Fitted]]:
    """A grid of inputs `[p, 1]`, and what the learner answers there, by what it is called.

    Args:
        learner: of one that descends, the answers after each of these numbers of inner `steps`.
        steps: by default `shown_steps`.
        task: one of functions of one number.

    Raises:
        UserError: the task has other inputs.
    """
    every = torch.cat([task.support.x, task.query.x])
    if every.shape[1:] != (1,):
        raise UserError(f"a fit can be drawn of functions of one number, not of {tuple(every.shape[1:])}")
    grid = torch.linspace(float(every.min()), float(every.max()), POINTS, dtype=every.dtype)[:, None]

    def fitted() -> Fitted:
        predictor = learner.adapt(task.support)
        if predictor.spread:
            mean, std = predictor.gaussian(grid)
            return Fitted(mean.cpu(), std.cpu())
        return Fitted(predictor(grid).cpu(), None)

    if not isinstance(learner, DescentLearner):
        return grid, {f"after {len(task.support.x)} examples": fitted()}
    found = {}
    for count in shown_steps(learner.steps) if steps is None else steps:
        with stepping(learner, count):
            found[f"{count} step{'s' * (count != 1)}"] = fitted()
    return grid, found


def shown_steps(trained: int, most: int = 5) -> list[int]:
    """Before learning, after each of the inner steps that were trained with, or `most` of them evenly, and
    after twice as many.

    >>> shown_steps(1), shown_steps(5), shown_steps(50)
    ([0, 1, 2], [0, 1, 2, 3, 4, 5, 10], [0, 10, 20, 30, 40, 50, 100])
    """
    count = min(trained, most)
    return [round(i * trained / count) for i in range(count + 1)] + [2 * trained]


def fit_picture(learner: Learner, task: Task, path: str | Path, steps: Sequence[int] | None = None) -> None:
    """Draw a regression task: its examples, its queries, what the learner makes of them.

    Args:
        learner: of one that descends, the fit after each of these numbers of inner steps; of one that states
            how sure it is, also a band of two standard deviations.
        task: one of functions of one number.
        path: the PNG to write.

    Raises:
        UserError: the task has other inputs.
    """
    grid, found = fits(learner, task, steps)
    figure = figure_of(7.4, 3.8)
    axes = axes_in(figure, title="A task and its fit", xlabel="x")
    x, y = (part[:, 0].cpu().numpy() for part in (task.query.x, task.query.y))
    axes.plot(x, y, ".", color=GREY, markersize=4, label="queries")
    for colour, (label, fitted) in zip(COLOURS, found.items(), strict=False):
        mean = fitted.mean[:, 0].numpy()
        axes.plot(grid[:, 0].numpy(), mean, color=BLUE if len(found) == 1 else colour, label=label)
        if fitted.std is not None:
            band = 2 * fitted.std[:, 0].numpy()
            axes.fill_between(
                grid[:, 0].numpy(), mean - band, mean + band, color=BLUE, alpha=0.14, linewidth=0
            )
    if any(fitted.std is not None for fitted in found.values()):
        axes.fill_between([], [], color=BLUE, alpha=0.14, linewidth=0, label="± 2 standard deviations")
    x, y = (part[:, 0].cpu().numpy() for part in (task.support.x, task.support.y))
    axes.plot(x, y, "o", color=INK, label="examples")
    beside = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, **beside)
    save(figure, path)
