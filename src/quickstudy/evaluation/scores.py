"""Scores beyond accuracy: macro precision, calibration error, confusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


def macro_precision(predicted: Tensor, y: Tensor, way: int) -> Tensor:
    """Precision of each class, averaged over the `way` classes; 0 for one that is never predicted.

    Args:
        predicted, y: labels of one task's queries `[q]`, or of many tasks' `[T, q]`.
        way: N; a class without queries counts too.

    Returns:
        A number for each task, `[]` or `[T]`.

    Example:
        >>> macro_precision(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 2).item()
        0.75
    """
    shape = (*y.shape[:-1], way)
    right = (predicted == y).float()
    guesses = right.new_zeros(shape).scatter_add(-1, predicted, torch.ones_like(right))
    hits = right.new_zeros(shape).scatter_add(-1, predicted, right)
    return (hits / guesses.clamp(min=1)).mean(-1)


class Calibration(NamedTuple):
    """Expected calibration error, and its bins: mean confidence, accuracy and share of the queries `[B]`."""

    error: float
    confidence: list[float]
    accuracy: list[float]
    share: list[float]


def calibration(confidence: Tensor, correct: Tensor, bins: int = 15) -> Calibration:
    """How far confidence is from accuracy (Guo et al. 2017, 1706.04599): Σ share · |accuracy − confidence|.

    Args:
        confidence: the probability of the predicted class, `[n]`.
        correct: whether it was right, `[n]`.
        bins: equal-width bins of confidence; a bin holds its lower edge, the last one 1 too.

    Example:
        >>> round(calibration(torch.tensor([0.9, 0.9, 0.9, 0.9]), torch.tensor([1, 1, 1, 0])).error, 3)
        0.15
    """
    which = (confidence * bins).long().clamp(0, bins - 1)
    count = torch.bincount(which, minlength=bins).double()

    def mean(values: Tensor) -> Tensor:
        return torch.bincount(which, values.double(), minlength=bins) / count.clamp(min=1)

    conf, acc, share = mean(confidence), mean(correct), count / count.sum().clamp(min=1)
    return Calibration(float((share * (acc - conf).abs()).sum()), conf.tolist(), acc.tolist(), share.tolist())


Confusion = dict[str, dict[str, int]]
"""True class → {predicted class: how often}; only pairs that occurred."""


def confusion(true: Tensor, predicted: Tensor, names: Sequence[str]) -> Confusion:
    """How often each class was taken for which, by name; only pairs that occurred.

    Args:
        true, predicted: class numbers of the data set, `[n]`.
        names: its class names.

    Example:
        >>> confusion(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), ["cat", "dog"])
        {'cat': {'cat': 1, 'dog': 1}, 'dog': {'dog': 1}}
    """
    pairs, counts = torch.unique(true * len(names) + predicted, return_counts=True)
    result: Confusion = {}
    for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
        t, p = divmod(pair, len(names))
        result.setdefault(names[t], {})[names[p]] = count
    return result


def hardest(counts: Confusion, classes: int = 5) -> list[tuple[str, float, str]]:
    """The classes with the lowest accuracy, each with its accuracy and what it was most often taken for.

    >>> hardest({"cat": {"cat": 1, "dog": 1}, "dog": {"dog": 1}})
    [('cat', 0.5, 'dog')]
    """
    found = []
    for true, row in counts.items():
        wrong = {predicted: n for predicted, n in row.items() if predicted != true}
        if wrong:
            found.append((true, row.get(true, 0) / sum(row.values()), max(wrong, key=lambda k: wrong[k])))
    return sorted(found, key=lambda line: line[1])[:classes]
