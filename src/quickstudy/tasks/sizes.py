"""How many: a number, or a range from which each task draws its own."""

from __future__ import annotations

import operator
from typing import NamedTuple

import numpy as np

from quickstudy.errors import TaskError

Count = int | tuple[int, int]


class Range(NamedTuple):
    """A number drawn for each task from `low` to `high`, both included."""

    low: int
    high: int

    @staticmethod
    def of(word: str, value: object, least: int) -> Range:
        """The range that a whole number, or a pair of them, stands for.

        Args:
            word: what messages call it.
            least: the smallest number that will do.

        Raises:
            TaskError: no whole numbers, too small ones, or the higher one first.

        >>> Range.of("way", 5, 2), Range.of("shot", (1, 3), 1)
        (Range(low=5, high=5), Range(low=1, high=3))
        """
        try:
            low, high = value if isinstance(value, (tuple, list)) else (value, value)
            found = Range(operator.index(low), operator.index(high))
        except (TypeError, ValueError):
            raise TaskError(f"{word} must be a whole number or (lowest, highest), not {value!r}") from None
        if found.low < least:
            raise TaskError(f"{word} must be at least {least}, not {found.low}")
        if found.high < found.low:
            raise TaskError(f"{word} runs from {found.low} to {found.high}: the lower number goes first")
        return found

    @staticmethod
    def single(word: str, value: object) -> int:
        """One whole number, 0 or more."""
        found = Range.of(word, value, 0)
        if found.low < found.high:
            raise TaskError(f"{word} must be one number, not a range")
        return found.low

    def like(self, given: object) -> Count:
        """A pair where a pair was given, else the number, in Python's own type."""
        return (self.low, self.high) if isinstance(given, (tuple, list)) else self.low

    def at(self, u: np.ndarray) -> np.ndarray:
        """The numbers that uniform ones in [0, 1) stand for."""
        return self.low + (u * (self.high - self.low + 1)).astype(np.int64)


class Sizes(NamedTuple):
    """The ranges that `way`, `shot` and `query` stand for."""

    way: Range
    shot: Range
    query: Range
