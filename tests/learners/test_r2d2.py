from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from quickstudy.errors import UserError
from quickstudy.learners import R2D2
from quickstudy.learners.r2d2 import ridge_regression, with_ones
from quickstudy.nets import mlp
from quickstudy.tasks import Task

from .common import Make

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize(("n", "d"), [(3, 8), (8, 3), (5, 5)])
def test_ridge_regression_is_least_squares_with_penalty_rows(n: int, d: int) -> None:
    x, y, penalty = torch.randn(n, d), torch.randn(n, 2), torch.tensor(0.3)
    rows = np.vstack([x.numpy(), np.sqrt(0.3) * np.eye(d)])
    wanted = np.linalg.lstsq(rows, np.vstack([y.numpy(), np.zeros((d, 2))]), rcond=None)[0]
    np.testing.assert_allclose(ridge_regression(x, y, penalty).numpy(), wanted, rtol=1e-9, atol=1e-12)


def test_without_penalty_it_is_the_pseudo_inverse() -> None:
    x, y = torch.randn(3, 8), torch.randn(3, 2)
    found = ridge_regression(x, y, torch.tensor(1e-12))
    torch.testing.assert_close(found, torch.linalg.pinv(x) @ y, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("n", "d"), [(3, 4), (4, 3)])
def test_the_solution_can_be_differentiated(n: int, d: int) -> None:
    inputs = torch.randn(n, d), torch.randn(n, 2), torch.tensor(0.5)
    assert torch.autograd.gradcheck(ridge_regression, [v.requires_grad_() for v in inputs])


@pytest.mark.parametrize("norm", ["support", "batch", "running"])
def test_meta_gradient_by_finite_differences(
    norm: str, smooth: Callable[[str], nn.Module], batch: Task, agrees: Callable[..., None]
) -> None:
    agrees(R2D2(smooth(norm)), batch)


def test_logits_are_the_scaled_regression_of_the_labels(make: Make, batch: Task) -> None:
    learner, task = make("r2d2", "layer", penalty=0.5), next(batch.unbatch())
    with torch.no_grad():
        learner.scale.fill_(3.0)
        x, q = (with_ones(learner.body(part.x)) for part in (task.support, task.query))
    y, n = F.one_hot(task.support.y).double(), len(x)
    wanted = 3.0 * q @ torch.linalg.inv(x.T @ x / n + 0.5 * torch.eye(x.shape[1])) @ x.T @ y / n
    torch.testing.assert_close(learner.adapt(task.support)(task.query.x), wanted)


def test_real_targets_are_regressed() -> None:
    x, w = torch.randn(30, 3), torch.randn(3, 2)
    predictor = R2D2(mlp(3, ()), penalty=1e-9).double().adapt(x, x @ w + 1.0)
    torch.testing.assert_close(predictor(2 * x), 2 * x @ w + 1.0, rtol=1e-6, atol=1e-6)


def test_the_penalty_is_above_zero(make: Make) -> None:
    with pytest.raises(UserError, match="penalty must be above 0"):
        make("r2d2", penalty=0.0)
    with pytest.raises(UserError, match="penalty must be at least 0 and finite, not nan"):
        make("r2d2", penalty=float("nan"))


def test_classes_count_alike_however_many_examples_they_have() -> None:
    """By the normal equations with weights, each class of the same weight in all."""
    learner = R2D2(mlp(3, ()), penalty=0.5)
    x, y, query = torch.randn(5, 3), torch.tensor([0, 0, 0, 1, 2]), torch.randn(4, 3)
    weights = torch.tensor([1, 1, 1, 3, 3]) / 9  # every class a third
    rows, targets = with_ones(x), F.one_hot(y, 3).double()
    w = torch.linalg.inv(rows.T * weights @ rows + 0.5 * torch.eye(4)) @ (rows.T * weights) @ targets
    torch.testing.assert_close(learner.adapt(x, y)(query), learner.scale.detach() * with_ones(query) @ w)


def test_the_penalty_means_the_same_for_more_examples() -> None:
    learner, x, y, query = R2D2(mlp(3, ())), torch.randn(4, 3), torch.arange(4), torch.randn(5, 3)
    again = learner.adapt(x.repeat(3, 1), y.repeat(3))(query)
    torch.testing.assert_close(again, learner.adapt(x, y)(query))
