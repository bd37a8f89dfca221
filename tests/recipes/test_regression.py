"""The regression recipe, small; its simple answers by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from quickstudy.evaluation.function_floors import FLOORS, floor
from quickstudy.outer.measure import Measurement
from quickstudy.recipes import Setting, regression
from quickstudy.recipes.regression import FAMILIES, Fit, RegressionRecipe, fits
from quickstudy.tasks import GaussianProcesses, Sinusoids


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
