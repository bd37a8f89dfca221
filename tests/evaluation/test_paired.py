"""The difference on the same tasks: against a closed form, by simulation, and narrower than two intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from quickstudy.errors import UserError
from quickstudy.evaluation.paired import paired

RNG = np.random.default_rng(0)


def test_it_is_the_interval_of_the_mean_of_differences() -> None:
    a, b = RNG.uniform(size=(2, 50))
    found = paired(a.tolist(), b.tolist())
    wanted = stats.norm.ppf(0.975) * stats.sem(a - b)
    assert found.mean == pytest.approx((a - b).mean(), abs=1e-9)
    assert found.ci95 == pytest.approx(wanted, rel=1e-4)
    assert paired(b.tolist(), a.tolist()).mean == pytest.approx(-found.mean, abs=1e-9)


def test_it_covers_the_true_difference_95_times_in_a_hundred() -> None:
    """Tasks of very different difficulty, one learner better by 0.02."""
    covered, clear = 0, 0
    for _ in range(2000):
        hardness = RNG.normal(0.6, 0.2, 100)
        a, b = hardness + 0.02 + RNG.normal(0, 0.03, 100), hardness + RNG.normal(0, 0.03, 100)
        found = paired(a.tolist(), b.tolist())
        covered += abs(found.mean - 0.02) <= found.ci95
        clear += found.clear
    assert 0.935 < covered / 2000 < 0.96
    assert clear / 2000 > 0.98  # the intervals of the two accuracies, ± 0.04 each, would not show it


def test_other_tasks_are_refused() -> None:
    with pytest.raises(UserError, match="3 tasks beside 2"):
        paired([1, 2, 3], [1, 2])
    with pytest.raises(UserError, match="from 2 tasks on, not from 1"):
        paired([1], [2])
