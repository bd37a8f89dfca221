"""What learners have in common whose inner learning is a forward pass: a net takes the support set's labels
in and gives a query's answer out, both in columns: one a class, or one a value of a regression.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.learners.base import Outer
from quickstudy.learners.embedding import EmbeddingLearner
from quickstudy.learners.targets import ANY, label_rows
from quickstudy.nets.mlp import mlp
from quickstudy.tasks.task import Support

LEAST_STD = 0.01
"""The smallest standard deviation: none is sure of a point it has not seen, and no likelihood runs away."""


class AmortisedLearner(EmbeddingLearner):
    """Learns a task by one forward pass of nets with so many columns; fewer ways leave some empty.

    Args:
        body: the embedding: inputs `[n, …]` → features `[n, D]`.
        columns: classes, or values of a regression, that it answers at most.
    """

    outer = Outer(meta_batch=4, outer_lr=1e-3, schedule="cosine", train_query=5)
    spread = True
    instead: ClassVar[str] = ANY
    """What answers more classes."""

    def __init__(self, body: nn.Module, columns: int) -> None:
        super().__init__(body)
        self.columns = columns

    def rows(self, support: Support, like: Tensor) -> Tensor:
        """Labels as rows `[n, columns]`: of a class 1 in its column, of values each in its own, else 0."""
        return label_rows(support, self.columns, like.dtype, self.instead)

    def answer_in(self, raw: Tensor, support: Support) -> Tensor:
        """The answer in what a net gives: of `[q, 2 · columns]` the logits `[q, N]`, or for targets `[n, D]`
        mean and log standard deviation `[q, 2D]`."""
        first, second = raw.chunk(2, -1)
        if support.way is not None:
            return first[:, : support.way]
        values = support.y.shape[-1]
        std = LEAST_STD + (1 - LEAST_STD) * F.softplus(second[:, :values])
        return torch.cat([first[:, :values], std.log()], -1)


class Pairs(nn.Module):
    """What an example says, its features and its label together: `[n, D]` and `[n, W]` → `[n, hidden]`.

    Each enters by a layer of its own, so that one label is heard beside many features.

    >>> Pairs(40, 1, 8)(torch.zeros(5, 40), torch.ones(5, 1)).shape
    torch.Size([5, 8])
    """

    def __init__(self, features: int, columns: int, hidden: int) -> None:
        super().__init__()
        self.features, self.label = nn.Linear(features, hidden), nn.Linear(columns, hidden)
        self.rest = nn.Sequential(nn.ReLU(), mlp(hidden, (hidden,)), nn.Linear(hidden, hidden))

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return self.rest(self.features(z) + self.label(y))
