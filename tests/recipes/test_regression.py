"""The regression recipe, small; its simple answers by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from quickstudy.errors import UserError
from quickstudy.outer.measure import Measurement
from quickstudy.recipes import Setting, regression
from quickstudy.recipes.regression import FAMILIES, FLOORS, Fit, RegressionRecipe, fits, floor
from quickstudy.tasks import GaussianProcesses, Sinusoids


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


def test_nobody_beats_the_posterior() -> None:
    source = GaussianProcesses(shot=8, query=50)
    exact, near, mean = (floor(FLOORS[name], source, 200) for name in ("exact", "nearest", "support-mean"))
    assert exact.mean("loss") < min(near.mean("loss"), mean.mean("loss"))
    torch.testing.assert_close(exact.values["log_likelihood"], source.log_likelihood(np.arange(200)))
    with pytest.raises(UserError, match="that of Gaussian processes"):
        floor(FLOORS["exact"], Sinusoids(), 2)


def test_parts_are_trained_measured_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {name: dataclasses.replace(FAMILIES[name], meta_batch=2) for name in FAMILIES}
    monkeypatch.setattr(regression, "FAMILIES", small)
    parts = (
        Fit("sinusoid", "maml", {"inner_lr": 0.01, "steps": 1}),
        Fit("gaussian-process", "cnp"),
        Fit("gaussian-process", "exact"),
    )
    rows = RegressionRecipe(parts, seconds=0.5).run(Setting("regression", tmp_path, tasks=8))["results"]
    assert [(row["part"], row["shot"]) for row in rows] == [
        (part.name, shot) for part in parts for shot in (5, 10)
    ]
    assert [set(row) >= {"log_likelihood", "log_likelihood_ci95"} for row in rows] == [False] * 2 + [True] * 4
    assert all(row["mse"] > 0 and row["tasks"] == 8 for row in rows)
    assert (tmp_path / "regression/sinusoid/maml/fit.png").stat().st_size > 5000
    again = RegressionRecipe(parts, seconds=0.5).run(Setting("regression", tmp_path, tasks=4))["results"]
    assert [r.get("iterations") for r in again] == [r.get("iterations") for r in rows]
    assert all(row["tasks"] == 4 for row in again)
    measured = np.array([row["mse"] for row in again])
    assert measured[-2:] == pytest.approx(
        [
            floor(FLOORS["exact"], GaussianProcesses(shot=n, query=100, seed=2), 4).mean("loss")
            for n in (5, 10)
        ]
    )


def test_who_regresses_has_a_part() -> None:
    assert {fit.learner for fit in fits() if fit.family == "sinusoid"} >= {"maml", "r2d2", "anp", "nearest"}
    assert ("gaussian-process", "exact") in {(fit.family, fit.learner) for fit in fits()}
    assert isinstance(floor(FLOORS["nearest"], Sinusoids(), 3), Measurement)
