"""`FewShotRegressor` answers as the learner does, with its uncertainty."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

import quickstudy as qs
from quickstudy.app.estimators import FewShotRegressor
from quickstudy.errors import UserError

X = np.linspace(-2, 2, 9)[:, None]
Y = np.sin(X[:, 0])


def test_a_ridge_regression_is_scikit_learns() -> None:
    """R2-D2 on no embedding at all: its penalty is of the mean square, and of the bias too."""
    ours = FewShotRegressor(qs.R2D2(torch.nn.Flatten(), penalty=0.1)).fit(X, Y)
    ones = np.hstack([X, np.ones_like(X)])
    theirs = Ridge(alpha=0.1 * len(X), fit_intercept=False).fit(ones, Y)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(ones), atol=1e-5)
    assert ours.score(X, Y) == pytest.approx(theirs.score(ones, Y), abs=1e-5)


def test_one_and_several_values() -> None:
    both = np.stack([Y, -Y], 1)
    for learner in (qs.MAML(qs.nets.mlp(1, (8,)), way=2), qs.R2D2(qs.nets.mlp(1, (8,)))):
        found = FewShotRegressor(learner).fit(X, both)
        np.testing.assert_allclose(found.predict(X), learner.adapt(X, both)(X).detach(), atol=1e-6)
    assert found.fit(X, both[:, :1]).predict(X).shape == (9, 1)
    assert found.fit(X, Y).predict(X).shape == (9,)
    with pytest.raises(UserError, match="2 outputs a point"):
        FewShotRegressor(qs.MAML(qs.nets.mlp(1, (8,)), way=2)).fit(X, Y)


def test_values_of_another_shape_are_refused() -> None:
    found = FewShotRegressor(qs.R2D2(torch.nn.Flatten())).fit(X, Y)
    with pytest.raises(UserError, match=r"targets of shape \(2,\), where those before had \(\)"):
        found.partial_fit(X, np.stack([Y, Y], 1))
    assert found.predict(X).shape == (9,)


def test_standard_deviations_are_the_predictors() -> None:
    learner = qs.CNP(qs.nets.mlp(1, (8,)), way=1)
    found = FewShotRegressor(learner).fit(X, Y)
    mean, std = found.predict(X, return_std=True)
    m, s = learner.adapt(X, Y[:, None]).gaussian(X)
    np.testing.assert_allclose(mean, m[:, 0], atol=1e-6)
    np.testing.assert_allclose(std, s[:, 0], atol=1e-6)
    np.testing.assert_array_equal(mean, found.predict(X))
    with pytest.raises(UserError, match="no standard deviations: cnp, anp and transformer"):
        FewShotRegressor(qs.R2D2(torch.nn.Flatten())).fit(X, Y).predict(X, return_std=True)


def test_points_are_added_and_saved(tmp_path: Path) -> None:
    learner = qs.MAML(qs.nets.mlp(1, (8,)), way=1)
    whole = FewShotRegressor(learner).fit(X, Y)
    parts = FewShotRegressor(learner).partial_fit(X[:4], Y[:4]).partial_fit(X[4:], Y[4:])
    np.testing.assert_allclose(parts.predict(X), whole.predict(X), atol=1e-6)
    parts.save(tmp_path / "r.safetensors")
    again = FewShotRegressor.load(tmp_path / "r.safetensors", learner=qs.MAML(qs.nets.mlp(1, (8,)), way=1))
    np.testing.assert_array_equal(again.predict(X), parts.predict(X))
