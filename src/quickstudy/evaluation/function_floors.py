"""What simple answers to functions are worth, and of Gaussian processes the best there is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from quickstudy.errors import UserError
from quickstudy.outer.measure import Measurement
from quickstudy.tasks import Completion, GaussianProcesses, TaskSource
from quickstudy.tasks.completion import places
from quickstudy.tasks.task import as_float


def support_mean(source: TaskSource, indices: np.ndarray) -> dict[str, Tensor]:
    """Everywhere the mean of the targets shown."""
    batch = source.batch(indices)
    return {"loss": errors(batch.support.y.mean(1, keepdim=True), batch.query.y)}


def nearest(source: TaskSource, indices: np.ndarray) -> dict[str, Tensor]:
    """The target of the nearest point shown."""
    batch = source.batch(indices)
    which = torch.cdist(batch.query.x, batch.support.x).argmin(-1)  # [T, q]
    found = batch.support.y.gather(1, which[..., None].expand_as(batch.query.y))
    return {"loss": errors(found, batch.query.y)}


def exact(source: TaskSource, indices: np.ndarray) -> dict[str, Tensor]:
    """The posterior of the Gaussian process that the task was drawn from: none does better on average."""
    if not isinstance(source, GaussianProcesses):
        raise UserError("the exact posterior is that of Gaussian processes")
    mean, _ = source.posterior(indices)
    return {
        "loss": errors(mean, source.batch(indices).query.y),
        "log_likelihood": source.log_likelihood(indices),
    }


def errors(found: Tensor, y: Tensor) -> Tensor:
    """Mean squared errors `[T]` of answers `[T, q, D]`."""
    return (found - y).square().mean((1, 2))


def mean_picture(source: TaskSource, indices: np.ndarray) -> dict[str, Tensor]:
    """Everywhere the mean of all pictures that tasks are of, whatever is shown."""
    if not isinstance(source, Completion):
        raise UserError("a mean picture is that of pictures to complete")
    mean, query = as_float(source.data.x).mean(0).flatten(1).mT, source.batch(indices).query  # [pixels, C]
    which = torch.cdist(query.x, places(*source.data.image_shape[1:]).expand(len(indices), -1, -1)).argmin(-1)
    return {"loss": errors(mean[which], query.y)}


FLOORS = {"support-mean": support_mean, "nearest": nearest, "mean-picture": mean_picture, "exact": exact}
ONLY_OF = {"mean-picture": Completion, "exact": GaussianProcesses}
"""Tasks that an answer is for, where it is not for all."""


def floor(
    answer: Callable[[TaskSource, np.ndarray], dict[str, Tensor]], source: TaskSource, n_tasks: int
) -> Measurement:
    """What simple answers are worth on tasks 0 … n_tasks − 1."""
    found = [answer(source, indices) for indices in np.array_split(np.arange(n_tasks), max(1, n_tasks // 50))]
    return Measurement({k: torch.cat([part[k] for part in found]) for k in found[0]})


def function_floors(source: TaskSource, n_tasks: int) -> dict[str, Measurement]:
    """All that apply to these tasks, by name.

    >>> from quickstudy.tasks import Sinusoids
    >>> sorted(function_floors(Sinusoids(), 3))
    ['nearest', 'support-mean']
    """
    names = [name for name in FLOORS if isinstance(source, ONLY_OF.get(name, object))]
    return {name: floor(FLOORS[name], source, n_tasks) for name in names}
