"""Labels and targets: as nets take them in, and what answers to them cost."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.errors import DataError, TaskError
from quickstudy.tasks.task import Support


def one_hot(support: Support, dtype: torch.dtype) -> Tensor:
    """A support set's labels as rows of 0 and 1 `[n, N]`; real targets `[n, D]` as they are.

    >>> one_hot(Support.of([[0.0], [1.0]], [0, 1]), torch.float32)
    tensor([[1., 0.],
            [0., 1.]])
    """
    if support.way is None:
        return support.y.to(dtype)
    return F.one_hot(support.y, support.way).to(dtype)


ANY = "proto-maml, protonet, r2d2 and all that compare examples answer any number"
"""What is said to whoever has more classes than a learner can tell apart."""


def check_way(way: int | None, most: int, instead: str = ANY) -> None:
    """Refuse more ways than a learner's outputs can answer.

    Raises:
        TaskError: it says what answers more `instead`.
    """
    if way is not None and way > most:
        raise TaskError(f"this learner answers at most {most} ways, not {way}; {instead}")


def label_rows(support: Support, columns: int, dtype: torch.dtype, instead: str = ANY) -> Tensor:
    """A support set's labels, or targets, as `one_hot` writes them, in so many columns: `[n, columns]`.

    Raises:
        TaskError: more ways than columns.
        DataError: more values a target than columns.

    >>> label_rows(Support.of([[0.0], [1.0]], [0, 1]), 3, torch.float32)
    tensor([[1., 0., 0.],
            [0., 1., 0.]])
    """
    rows = one_hot(support, dtype)
    if support.way is None and rows.shape[-1] > columns:
        raise DataError(f"targets of {rows.shape[-1]} values, but this learner predicts at most {columns}")
    check_way(support.way, columns, instead)
    return F.pad(rows, (0, columns - rows.shape[-1]))


def shares(y: Tensor, dtype: torch.dtype) -> Tensor | None:
    """What each example of a support set counts, `[n]`, of sum 1: every class as much as any other, however
    many examples it has (Ochal et al. 2021, arXiv 2101.02523, on what happens otherwise). None for real
    targets, which count alike.

    >>> shares(torch.tensor([0, 0, 1]), torch.float32)
    tensor([0.2500, 0.2500, 0.5000])
    """
    if y.is_floating_point():
        return None
    each = (y[:, None] == y).sum(-1).to(dtype).reciprocal()
    return each / each.sum()


def counts(y: Tensor, dtype: torch.dtype) -> Tensor | None:
    """`shares` of mean 1: what an example counts beside others that are looked at one by one, `[n]`.

    >>> counts(torch.tensor([0, 0, 1]), torch.float32)
    tensor([0.7500, 0.7500, 1.5000])
    """
    each = shares(y, dtype)
    return None if each is None else len(y) * each


def task_loss(output: Tensor, y: Tensor, shares: Tensor | None = None) -> Tensor:
    """Cross-entropy for class labels, mean squared error for real targets.

    Args:
        shares: what each example's cross-entropy counts; by default all count alike.
    """
    if y.is_floating_point():
        if output.shape != y.shape:
            raise DataError(
                f"{output.shape[-1]} outputs a point, but targets of shape {tuple(y.shape)}: way must be the "
                "number of values to predict, and class labels whole numbers"
            )
        return F.mse_loss(output, y)
    if shares is None:
        return F.cross_entropy(output, y)
    return F.cross_entropy(output, y, reduction="none") @ shares


def log_likelihood(output: Tensor, y: Tensor) -> Tensor:
    """The mean log-density of targets `[q, D]` in nats a point, under normal distributions.

    Args:
        output: their means, then the logarithms of their standard deviations `[q, 2D]`.

    >>> log_likelihood(torch.zeros(3, 2), torch.zeros(3, 1))  # -½ log 2π
    tensor(-0.9189)
    """
    mean, log_std = output.chunk(2, -1)
    distances = (y - mean) * torch.exp(-log_std)
    return -(0.5 * distances.square() + log_std + 0.5 * math.log(2 * math.pi)).sum(-1).mean()
