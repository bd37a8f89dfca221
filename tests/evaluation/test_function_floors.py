"""Simple answers to functions, point by point, and the posterior that nobody beats."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quickstudy.data import ClassDataset
from quickstudy.errors import UserError
from quickstudy.evaluation.function_floors import FLOORS, floor
from quickstudy.tasks import Completion, GaussianProcesses, Sinusoids


def plainly(name: str, source: Sinusoids | GaussianProcesses, n_tasks: int) -> list[float]:
    """The squared errors of a simple answer, point by point."""
    found = []
    for i in range(n_tasks):
        task, total = source.task(i), 0.0
        for x, y in zip(task.query.x[:, 0].tolist(), task.query.y[:, 0].tolist(), strict=True):
            shown = list(zip(task.support.x[:, 0].tolist(), task.support.y[:, 0].tolist(), strict=True))
            mean = sum(t for _, t in shown) / len(shown)
            total += (
                y - (mean if name == "support-mean" else min((abs(s - x), t) for s, t in shown)[1])
            ) ** 2
        found.append(total / len(task.query.y))
    return found


@pytest.mark.parametrize("name", ["support-mean", "nearest"])
def test_simple_answers_point_by_point(name: str) -> None:
    source = Sinusoids(shot=4, query=7)
    found = floor(FLOORS[name], source, 60)
    assert found.values["loss"].tolist() == pytest.approx(plainly(name, source, 60), rel=1e-4)


def test_the_mean_picture() -> None:
    x = np.random.default_rng(0).integers(0, 256, (6, 1, 5, 4), np.uint8)
    source = Completion(ClassDataset.from_arrays(x, np.arange(6) % 2), shot=3, query=7)
    found = floor(FLOORS["mean-picture"], source, 20).values["loss"].tolist()
    for i, loss in enumerate(found):
        query = source.task(i).query
        rows, columns = ((query.x + 1) / 2 * torch.tensor([4, 3])).round().long().T.tolist()
        means = [x[:, 0, r, c].mean() / 255 for r, c in zip(rows, columns, strict=True)]
        assert loss == pytest.approx(np.square(query.y[:, 0].numpy() - means).mean(), rel=1e-5)
    with pytest.raises(UserError, match="pictures to complete"):
        floor(FLOORS["mean-picture"], Sinusoids(), 2)


def test_nobody_beats_the_posterior() -> None:
    source = GaussianProcesses(shot=8, query=50)
    exact, near, mean = (floor(FLOORS[name], source, 200) for name in ("exact", "nearest", "support-mean"))
    assert exact.mean("loss") < min(near.mean("loss"), mean.mean("loss"))
    torch.testing.assert_close(exact.values["log_likelihood"], source.log_likelihood(np.arange(200)))
    with pytest.raises(UserError, match="that of Gaussian processes"):
        floor(FLOORS["exact"], Sinusoids(), 2)
