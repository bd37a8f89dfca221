from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from quickstudy.errors import TaskError
from quickstudy.tasks import GaussianProcesses


def test_a_posterior_by_hand() -> None:
    """One support point and one query: the formulas of two jointly normal numbers."""
    source = GaussianProcesses(shot=1, query=1, length=0.7, scale=1.5, noise=0.3, seed=2)
    for i in range(5):
        task = source.task(i)
        x, y, q, wanted = (float(v) for v in (task.support.x, task.support.y, task.query.x, task.query.y))
        k = 1.5**2 * math.exp(-((x - q) ** 2) / (2 * 0.7**2))
        mean = k / (1.5**2 + 0.3**2) * y
        var = 1.5**2 + 0.3**2 - k**2 / (1.5**2 + 0.3**2)
        found = [v.item() for v in source.posterior(np.array([i]))]
        assert found == pytest.approx([mean, math.sqrt(var)], rel=1e-9)
        nats = -0.5 * math.log(2 * math.pi * var) - (wanted - mean) ** 2 / (2 * var)
        assert source.log_likelihood(np.array([i])).item() == pytest.approx(nats, rel=1e-9)


def test_the_posterior_is_the_conditional_of_the_joint_distribution() -> None:
    """By the inverse of the whole covariance, whose last row tells the last point given all others."""
    source = GaussianProcesses(shot=6, query=1, length=0.4, scale=1.7, noise=0.2, seed=1)
    means, stds = source.posterior(np.arange(4))
    for t, task in enumerate(source.batch(np.arange(4)).unbatch()):
        x = torch.cat([task.support.x, task.query.x])[:, 0].double()
        k = 1.7**2 * torch.exp(-((x[:, None] - x) ** 2) / (2 * 0.4**2)) + 0.04 * torch.eye(
            7, dtype=torch.float64
        )
        precision = torch.linalg.inv(k)
        mean = -(precision[-1, :-1] @ task.support.y[:, 0].double()) / precision[-1, -1]
        assert means[t].item() == pytest.approx(mean.item(), rel=1e-9)
        assert stds[t].item() == pytest.approx(precision[-1, -1].rsqrt().item(), rel=1e-9)


def test_draws_have_the_kernels_covariance() -> None:
    """Over many tasks with the same points, given as the chance of other points."""
    source = GaussianProcesses(shot=2, query=1, length=0.8, scale=1.3, noise=0.2)
    u = np.random.default_rng(0).uniform(size=(40_000, source.parameters))
    x = np.array([-0.4, 0.1, 1.5])
    y = source.function(u, np.repeat(x[None], len(u), 0))
    wanted = 1.3**2 * np.exp(-((x[:, None] - x) ** 2) / (2 * 0.8**2))
    np.testing.assert_allclose(np.cov(y.T), wanted, atol=0.04)
    np.testing.assert_allclose(y.mean(0), 0, atol=0.03)


def test_sizes_are_drawn_for_each_task_within_their_range() -> None:
    source = GaussianProcesses(length=(0.2, 1.0), scale=(0.5, 2.0))
    u = np.random.default_rng(0).uniform(size=(500, source.parameters))
    x = np.zeros((500, 2))
    x[:, 1] = 0.5
    k = source.kernel(u, x, x)
    scales = np.sqrt(k[:, 0, 0])
    lengths = 0.5 / np.sqrt(-2 * np.log(k[:, 0, 1] / k[:, 0, 0]))
    for found, (low, high) in ((scales, (0.5, 2.0)), (lengths, (0.2, 1.0))):
        assert low <= found.min() < low + 0.02
        assert high - 0.02 < found.max() <= high


def test_the_posterior_is_better_than_any_other_and_calibrated() -> None:
    """Its standardised errors are standard normal, and no other mean or width scores more."""
    source = GaussianProcesses(shot=5, query=20, seed=3, length=(0.2, 1.0), scale=(0.5, 2.0))
    indices = np.arange(200)
    mean, std = source.posterior(indices)
    y = source.batch(indices).query.y
    z = (y - mean) / std
    assert float(z.mean()) == pytest.approx(0, abs=0.05)
    assert float(z.std()) == pytest.approx(1, abs=0.05)
    best = source.log_likelihood(indices).mean()
    for m, s in ((mean + 0.1, std), (mean, 1.3 * std), (mean, std / 1.3), (0 * mean, std.new_tensor(1.0))):
        assert torch.distributions.Normal(m, s).log_prob(y).mean() < best


def test_a_task_is_a_function_of_its_index_alone() -> None:
    source = GaussianProcesses(shot=3, query=4, seed=5, length=(0.2, 0.6))
    alone, batch = source.task(7), source.batch(np.array([1, 7]))
    assert torch.equal(alone.query.y, batch.query.y[1])
    assert not torch.equal(batch.query.y[0], batch.query.y[1])
    torch.testing.assert_close(
        source.log_likelihood(np.array([7])), source.log_likelihood(np.array([1, 7]))[1:]
    )
    assert batch.support.x.abs().max() <= 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"length": 0.0}, "length must be above 0"),
        ({"scale": (2.0, 1.0)}, r"scale must be above 0, or \(lowest, highest\), not \(2.0, 1.0\)"),
        ({"noise": float("nan")}, "noise must be at least 0 and finite"),
        ({"noise": 0.0}, "noise must be above 0"),
    ],
)
def test_sizes_that_are_none_are_refused(options: dict[str, float], said: str) -> None:
    with pytest.raises(TaskError, match=said):
        GaussianProcesses(**options)


def test_describe() -> None:
    told = GaussianProcesses(length=(0.1, 0.6)).describe()
    assert (told["data"], told["length"], told["noise"]) == ("gaussianprocesses", (0.1, 0.6), 0.1)
