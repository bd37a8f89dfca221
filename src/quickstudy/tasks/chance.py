"""Chance as a pure function of (seed, index): one stream of numbers a task, any order, any machine.

NumPy's counter-based generators seed one stream at a time (about 15 microseconds each), which would cost
more than gathering the task's pictures; hashing the counter of every task at once costs 20 times less.
"""

from __future__ import annotations

import numpy as np

_GOLDEN = 0x9E3779B97F4A7C15


def _mix(z: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014), uint64 to uint64, a bijection."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniforms(seed: int, stream: int, indices: np.ndarray, count: int) -> np.ndarray:
    """Independent numbers, uniform in [0, 1), for each index: float64 `[T, count]`.

    Args:
        seed: any integer.
        stream: a small integer, one for each use of chance inside a task.
        indices: `[T]` task numbers.
        count: how many numbers a task.

    >>> a = uniforms(0, 1, np.array([7, 8]), 3)
    >>> bool((a[1] == uniforms(0, 1, np.array([8]), 3)[0]).all())
    True
    """
    with np.errstate(over="ignore"):
        key = _mix(np.array([seed % 2**64], dtype=np.uint64) + np.uint64(_GOLDEN))
        key = _mix(key + np.uint64(stream) * np.uint64(_GOLDEN))
        start = _mix(key + np.asarray(indices).astype(np.uint64) * np.uint64(_GOLDEN))
        counter = start[:, None] + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
        return (_mix(counter) >> np.uint64(11)) * 2.0**-53


def normals(u: np.ndarray) -> np.ndarray:
    """Standard normal numbers `[..., k]` of uniform ones `[..., 2k]` (Box and Muller 1958).

    >>> normals(uniforms(0, 0, np.arange(1000), 2)).std().round(1)
    np.float64(1.0)
    """
    k = u.shape[-1] // 2
    radius = np.sqrt(-2 * np.log(1 - u[..., :k]))  # of a number in (0, 1]
    return radius * np.cos(2 * np.pi * u[..., k:])


def choose(u: np.ndarray, n: np.ndarray | int, k: int) -> np.ndarray:
    """k different whole numbers below n in uniformly random order, without touching all n.

    Floyd's algorithm (Bentley and Floyd 1987) for the set, a random order after it; every row at once.

    Args:
        u: uniform numbers `[..., 2k]`.
        n: population sizes, broadcastable to `[...]`, each at least k.
        k: how many.

    Returns:
        int64 `[..., k]`.
    """
    picks = np.empty((*u.shape[:-1], k), dtype=np.int64)
    for i in range(k):
        top = n - k + i
        draw = (u[..., i] * (top + 1)).astype(np.int64)
        taken = (picks[..., :i] == draw[..., None]).any(-1)
        picks[..., i] = np.where(taken, top, draw)
    return np.take_along_axis(picks, np.argsort(u[..., k : 2 * k], axis=-1), -1)
