from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from quickstudy.tasks.chance import choose, normals, uniforms


@given(
    st.integers(-(2**70), 2**70), st.integers(0, 9), st.lists(st.integers(0, 2**40), min_size=1, max_size=8)
)
def test_a_number_depends_on_seed_stream_and_index_only(seed: int, stream: int, indices: list[int]) -> None:
    together = uniforms(seed, stream, np.array(indices), 5)
    alone = [uniforms(seed, stream, np.array([i]), 9)[0, :5] for i in indices]
    np.testing.assert_array_equal(together, alone)
    assert together.min() >= 0
    assert together.max() < 1


def test_known_values() -> None:
    """SplitMix64 by arbitrary-precision integers, written from the paper."""
    mask, golden = 2**64 - 1, 0x9E3779B97F4A7C15

    def mix(z: int) -> int:
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    seed, stream, index = -3, 4, 10**6
    key = mix((mix((seed + golden) & mask) + stream * golden) & mask)
    start = mix((key + index * golden) & mask)
    expected = [(mix((start + i * golden) & mask) >> 11) / 2**53 for i in range(1, 5)]
    assert uniforms(seed, stream, np.array([index]), 4)[0].tolist() == expected


def test_streams_seeds_and_indices_are_independent() -> None:
    """No two streams share numbers, and none is correlated with its neighbour."""
    n = 4000
    columns = [
        uniforms(seed, stream, np.arange(first, first + n), 1)[:, 0]
        for seed, stream, first in [(0, 0, 0), (0, 1, 0), (1, 0, 0), (2, 1, 0), (0, 0, n)]
    ]
    assert len(np.unique(np.concatenate(columns))) == 5 * n
    correlation = np.corrcoef(columns) - np.eye(5)
    assert np.abs(correlation).max() < 5 / np.sqrt(n)
    for column in columns:
        assert stats.kstest(column, "uniform").pvalue > 1e-4


@given(st.data(), st.integers(0, 6), st.integers(0, 2**32))
def test_chosen_numbers_differ_and_are_below_n(data: st.DataObject, k: int, seed: int) -> None:
    n = np.array(data.draw(st.lists(st.integers(max(k, 1), 40), min_size=1, max_size=6)))
    picks = choose(np.random.default_rng(seed).random((len(n), 2 * k)), n, k)
    assert picks.shape == (len(n), k)
    assert picks.dtype == np.int64
    for row, size in zip(picks.tolist(), n.tolist(), strict=True):
        assert len(set(row)) == k
        assert all(0 <= p < size for p in row)


@pytest.mark.parametrize("edge", [0.0, 1 - 2**-53])
def test_the_extreme_uniform_numbers_stay_in_range(edge: float) -> None:
    for n in (1, 3, 1000, 2**31 + 1, 2**40):
        assert 0 <= choose(np.full((1, 2), edge), n, 1).item() < n


@pytest.mark.parametrize(("n", "k"), [(4, 2), (5, 3), (3, 3)])
def test_every_ordered_choice_is_equally_likely(n: int, k: int) -> None:
    trials = 24_000
    picks = choose(uniforms(1, 0, np.arange(trials), 2 * k), n, k)
    counts = dict.fromkeys(itertools.permutations(range(n), k), 0)
    for row in map(tuple, picks.tolist()):
        counts[row] += 1
    assert stats.chisquare(list(counts.values())).pvalue > 1e-4


def test_normals_are_normal() -> None:
    z = normals(uniforms(3, 0, np.arange(2000), 20))
    assert z.shape == (2000, 10)
    assert stats.kstest(z.ravel(), "norm").pvalue > 0.01
    assert abs(np.corrcoef(z[:, :5].ravel(), z[:, 5:].ravel())[0, 1]) < 0.03
    assert np.isfinite(normals(np.array([[0.0, 0.0], [1 - 2.0**-53, 0.5]]))).all()
