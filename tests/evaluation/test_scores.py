"""The scores beside scikit-learn and beside plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, precision_score

from quickstudy.evaluation.scores import calibration, confusion, macro_precision


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), way=st.integers(2, 7), queries=st.integers(1, 30))
def test_macro_precision_is_scikit_learns(seed: int, way: int, queries: int) -> None:
    rng = np.random.default_rng(seed)
    y, predicted = rng.integers(0, way, (2, 4, queries))  # few queries: classes never asked or never guessed
    wanted = [
        precision_score(t, p, labels=range(way), average="macro", zero_division=0)
        for t, p in zip(y, predicted, strict=True)
    ]
    got = macro_precision(torch.from_numpy(predicted), torch.from_numpy(y), way)
    np.testing.assert_allclose(got, wanted, rtol=1e-6)
    alone = macro_precision(torch.from_numpy(predicted[0]), torch.from_numpy(y[0]), way)
    assert alone.item() == got[0].item()


def test_a_class_never_predicted_counts_as_zero() -> None:
    y = torch.tensor([0, 1, 2])
    assert macro_precision(torch.zeros(3, dtype=torch.long), y, 3).item() == pytest.approx(1 / 9)


@given(seed=st.integers(0, 10_000), n=st.integers(1, 200), bins=st.integers(1, 20))
def test_calibration_is_the_naive_loops(seed: int, n: int, bins: int) -> None:
    rng = np.random.default_rng(seed)
    confidence, correct = rng.uniform(0, 1, n), rng.integers(0, 2, n)
    error, total = 0.0, 0.0
    for b in range(bins):
        inside = [i for i in range(n) if b / bins <= confidence[i] < (b + 1) / bins]
        if inside:
            gap = float(abs(np.mean(correct[inside]) - np.mean(confidence[inside])))
            error += len(inside) / n * gap
        total += len(inside) / n
    got = calibration(torch.from_numpy(confidence), torch.from_numpy(correct), bins)
    assert total == pytest.approx(1)
    assert got.error == pytest.approx(error)
    assert sum(got.share) == pytest.approx(1)
    assert len(got.share) == len(got.confidence) == len(got.accuracy) == bins
    rebuilt = np.array(got.share) @ np.abs(np.array(got.accuracy) - np.array(got.confidence))
    assert rebuilt == pytest.approx(error)


def test_certainty_is_in_the_last_bin() -> None:
    got = calibration(torch.ones(4), torch.tensor([1, 1, 1, 0]))
    assert got.share == [0.0] * 14 + [1.0]
    assert got.error == pytest.approx(0.25)


def test_calibrated_guesses_have_a_small_error() -> None:
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(200_000, generator=generator)
    assert calibration(p, torch.rand(200_000, generator=generator) < p).error < 0.01
    assert calibration(p, torch.rand(200_000, generator=generator) < p**2).error > 0.1


@given(seed=st.integers(0, 10_000), n=st.integers(1, 100))
def test_confusion_is_scikit_learns(seed: int, n: int) -> None:
    true, predicted = np.random.default_rng(seed).integers(0, 6, (2, n))
    names = [f"class {c}" for c in range(6)]
    got = confusion(torch.from_numpy(true), torch.from_numpy(predicted), names)
    table = np.array([[got.get(t, {}).get(p, 0) for p in names] for t in names])
    np.testing.assert_array_equal(table, confusion_matrix(true, predicted, labels=range(6)))
    assert all(count > 0 for row in got.values() for count in row.values())


def test_confusion_of_many_classes_holds_only_what_occurred() -> None:
    names = [str(c) for c in range(1692)]
    true = torch.arange(1692).repeat(3)
    got = confusion(true, torch.cat([true[:1692], true[1692:].roll(1)]), names)
    assert sum(map(len, got.values())) <= 3 * 1692
    assert sum(sum(row.values()) for row in got.values()) == 3 * 1692
