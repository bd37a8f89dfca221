from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from quickstudy.errors import TaskError
from quickstudy.tasks import FiveModes, Harmonics, Lines, Sinusoids
from quickstudy.tasks.regression import FunctionTasks
from quickstudy.tasks.task import Task

FAMILIES = [Sinusoids, Harmonics, Lines, FiveModes]


def points(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """All (x, y) of one task, or of each of a batch, float64."""
    x = torch.cat([task.support.x, task.query.x], -2).double().numpy()[..., 0]
    y = torch.cat([task.support.y, task.query.y], -2).double().numpy()[..., 0]
    return x, y


def residual(features: np.ndarray, y: np.ndarray) -> float:
    """The largest error of the best linear combination of these features `[n, D]`."""
    weights = np.linalg.lstsq(features, y, rcond=None)[0]
    return float(np.abs(features @ weights - y).max())


def test_sinusoids_are_sinusoids_of_the_papers_range() -> None:
    amplitudes, phases = [], []
    for task in Sinusoids(shot=10, query=20, seed=1).batch(np.arange(300)).unbatch():
        x, y = points(task)
        features = np.stack([np.sin(x), np.cos(x)], 1)
        assert residual(features, y) < 1e-5
        a, b = np.linalg.lstsq(features, y, rcond=None)[0]  # a sin x + b cos x = A sin(x - phi)
        amplitudes.append(np.hypot(a, b))
        phases.append(np.arctan2(-b, a))
    # 300 draws come near both ends of 0.1 ... 5 and 0 ... pi, and stay inside.
    assert 0.1 <= min(amplitudes) < 0.3
    assert 4.8 < max(amplitudes) <= 5.0 + 1e-5
    assert -1e-5 <= min(phases) < 0.1
    assert np.pi - 0.1 < max(phases) <= np.pi + 1e-5


def test_lines_are_lines_of_slope_and_height_within_three() -> None:
    found = []
    for task in Lines(shot=5, query=5, seed=1).batch(np.arange(300)).unbatch():
        x, y = points(task)
        features = np.stack([x, np.ones_like(x)], 1)
        assert residual(features, y) < 1e-5
        found.append(np.linalg.lstsq(features, y, rcond=None)[0])
    low, high = np.min(found, 0), np.max(found, 0)
    assert (low >= -3 - 1e-5).all()
    assert (low < -2.8).all()
    assert (high <= 3 + 1e-5).all()
    assert (high > 2.8).all()


def test_harmonics_are_two_harmonics_of_one_frequency() -> None:
    rates = []
    for task in Harmonics(shot=30, query=30, seed=1).batch(np.arange(20)).unbatch():
        x, y = points(task)
        t = x / 5

        def error(w: float, t: np.ndarray = t, y: np.ndarray = y) -> float:
            features = [np.sin(w * t), np.cos(w * t), np.sin(2 * w * t), np.cos(2 * w * t)]
            return residual(np.stack(features, 1), y)

        w = min(np.linspace(5, 7, 401), key=error)
        assert error(w) < 0.02  # the grid's step of 0.005 leaves no more
        assert np.abs(y).max() <= 2.0
        rates.append(w)
    assert max(rates) - min(rates) > 0.5


def by_the_papers_code(kind: int, a: float, b: float, c: float, x: float) -> float:
    """Each function of uniform numbers a, b, c; the ranges are those of the authors' data sets."""
    if kind == 0:
        return (0.1 + a * (5.0 - 0.1)) * math.sin(x - b * math.pi)
    slope, intercept, centre = -3 + 6 * a, -3 + 6 * b, -3 + 6 * c
    if kind == 2:
        size = 0.02 + (0.15 - 0.02) * abs(a - 0.5) / 0.5
        return math.copysign(size, a - 0.5) * (x - centre) ** 2 + intercept
    return slope * {1: x, 3: abs(x - centre), 4: math.tanh(x - centre)}[kind] + intercept


def test_five_kinds_of_functions() -> None:
    u, x = np.random.default_rng(0).random((200, 4)), np.linspace(-5, 5, 7)
    found = FiveModes().function(u, np.tile(x, (200, 1)))
    for row, (kind, *numbers) in zip(found, u, strict=True):
        wanted = [by_the_papers_code(int(kind / 0.2), *numbers, v) for v in x]
        np.testing.assert_allclose(row, wanted, rtol=1e-12, atol=1e-12)


def test_the_five_kinds_are_equally_often() -> None:
    kinds = {
        "sinusoid": lambda x: (np.sin(x), np.cos(x)),
        "line": lambda x: (x, np.ones_like(x)),
        "parabola or line": lambda x: (x**2, x, np.ones_like(x)),
    }
    tasks = [points(task) for task in FiveModes(shot=5, query=5, noise=0).batch(np.arange(500)).unbatch()]
    for kind, features in kinds.items():
        count = sum(residual(np.stack(features(x), 1), y) < 1e-4 for x, y in tasks)
        assert abs(count - (200 if "or" in kind else 100)) < 35, kind  # 100 ± 9, 200 ± 11


def test_noise_is_normal_and_independent_of_the_function() -> None:
    still, noisy = (points(Lines(shot=20, query=20, noise=noise).batch(np.arange(200))) for noise in (0, 0.3))
    assert np.array_equal(still[0], noisy[0])
    away = (noisy[1] - still[1]).ravel() / 0.3
    assert abs(away.mean()) < 0.05
    assert abs(away.std() - 1) < 0.03
    assert abs((np.abs(away) < 1).mean() - 0.683) < 0.02
    assert abs((np.abs(away) < 2).mean() - 0.954) < 0.01
    assert FiveModes().describe()["noise"] == 0.3
    assert "noise" not in Lines().describe()
    for noise in (-0.1, float("nan"), float("inf")):
        with pytest.raises(TaskError, match="noise must be at least 0 and finite"):
            Lines(noise=noise)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_task_has_its_own_points_and_function(family: type[FunctionTasks]) -> None:
    source = family(shot=5, query=7, seed=3)
    batch = source.batch(np.array([4, 9, 4]))
    assert batch.support.x.shape == (3, 5, 1)
    assert batch.query.y.shape == (3, 7, 1)
    assert batch.support.way is None
    assert torch.equal(batch.support.x[0], batch.support.x[2])
    assert torch.equal(batch.query.y[0], batch.query.y[2])
    everything = torch.cat([batch.support.x[:2], batch.query.x[:2]], 1)
    assert len(everything.unique()) == 24
    assert everything.abs().max() <= 5
    assert not torch.equal(
        family(shot=5, query=7, seed=4).batch(np.array([4])).support.x[0], batch.support.x[0]
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_one_task_equals_its_place_in_a_batch(family: type[FunctionTasks]) -> None:
    alone, batch = family().task(5), family().batch(np.array([3, 5]))
    assert torch.equal(alone.support.x, batch.support.x[1])
    assert torch.equal(alone.query.y, batch.query.y[1])


def test_points_fill_the_interval() -> None:
    x = Sinusoids(shot=50).batch(np.arange(40)).support.x
    assert x.min() < -4.95
    assert x.max() > 4.95
    assert abs(float(x.mean())) < 0.2


def test_no_points_is_an_error() -> None:
    with pytest.raises(TaskError, match="shot must be at least 1"):
        Sinusoids(shot=0)
    with pytest.raises(TaskError, match="query must be at least 1"):
        Lines(query=0)


def test_describe() -> None:
    assert Lines(shot=3, query=4, seed=5).describe() == {"data": "lines", "shot": 3, "query": 4, "seed": 5}


def test_sizes_and_ranges_are_checked_and_told() -> None:
    for options, message in (
        ({"shot": 2.5}, "shot must be a whole number"),
        ({"query": (1, 2)}, "query must be one number"),
        ({"low": 5, "high": -5}, "x runs from 5 to -5"),
    ):
        with pytest.raises(TaskError, match=message):
            Sinusoids(**options)
    assert Sinusoids(low=0, high=1).describe()["x"] == [0, 1]
    assert "x" not in Sinusoids().describe()
