"""Classes divided at random into meta-train, meta-validation and meta-test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from quickstudy.errors import DataError

Parts = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


def random_parts(groups: Sequence[str], seed: int, fractions: tuple[float, float], name: str) -> Parts:
    """The class indices of each part; classes of one group stay together.

    Args:
        groups: the group of each class.
        fractions: shares of the groups in meta-train and meta-validation; the rest is meta-test.
        name: what the data set is called in messages.

    Raises:
        DataError: fewer than 3 groups, or shares that leave a part without any.

    >>> random_parts(["a", "b", "c", "a"], 0, (0.6, 0.2), "letters")
    ((2,), (0, 3), (1,))
    """
    if len(fractions) != 2 or not (min(fractions) > 0 and sum(fractions) < 1):
        raise DataError(
            f"{name}: the shares {fractions} of meta-train and meta-validation must each be above 0 and "
            "leave some for meta-test"
        )
    found = list(dict.fromkeys(groups))
    n = len(found)
    if n < 3:
        raise DataError(f"{name}: {n} classes cannot be split in three; at least 3 are needed")
    least = min(3, n // 3)
    val = min(max(round(fractions[1] * n), least), n - 2 * least)
    test = min(max(round((1 - sum(fractions)) * n), least), n - least - val)
    order = np.random.default_rng(seed).permutation(n)
    part = dict(
        zip((found[i] for i in order), np.repeat([0, 1, 2], [n - val - test, val, test]), strict=True)
    )
    train, validation, rest = (tuple(c for c, g in enumerate(groups) if part[g] == p) for p in range(3))
    return train, validation, rest
