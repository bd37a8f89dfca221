"""Scores beyond accuracy: macro precision, calibration error, confusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


def macro_precision(predicted: Tensor, y: Tensor, way: int) -> Tensor:
    """Precision of each class, averaged over the `way` classes; 0 for one that is never predicted.

    >>> macro_precision(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 2).item()
    0.75
    """
    counts = torch.zeros(way, way).index_put(
        (y, predicted), torch.ones(len(y)), accumulate=True
    )  # [true, pred]
    return (counts.diagonal() / counts.sum(0).clamp(min=1)).mean()


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
        bins: equal-width bins of confidence.
    """
    which = (confidence * bins).long().clamp(0, bins - 1)
    count = torch.bincount(which, minlength=bins).double()

    def mean(values: Tensor) -> Tensor:
        return torch.bincount(which, values.double(), minlength=bins) / count.clamp(min=1)

    conf, acc, share = mean(confidence), mean(correct), count / count.sum().clamp(min=1)
    return Calibration(float((share * (acc - conf).abs()).sum()), conf.tolist(), acc.tolist(), share.tolist())


def confusion(true: Tensor, predicted: Tensor, names: Sequence[str]) -> dict[str, dict[str, int]]:
    """How often each class was taken for which, by name; only pairs that occurred.

    Args:
        true, predicted: class numbers of the data set, `[n]`.
        names: its class names.
    """
    pairs, counts = torch.unique(torch.stack([true, predicted], 1), dim=0, return_counts=True)
    result: dict[str, dict[str, int]] = {}
    for (t, p), count in zip(pairs.tolist(), counts.tolist(), strict=True):
        result.setdefault(names[t], {})[names[p]] = count
    return result
