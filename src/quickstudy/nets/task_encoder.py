"""A task's embedding: one vector of a whole support set, whatever its order and size.

Zaheer et al. 2017, Deep Sets, arXiv 1703.06114: ρ(mean φ(x, y)).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quickstudy.nets.mlp import ends_in_zeros


class TaskEncoder(nn.Module):
    """Features `[n, D]` and targets `[n, C]` of a support set → `[outputs]`, 0 at the beginning.

    Args:
        features: D.
        targets: C, of one-hot labels or real targets.
        outputs: how many numbers to make of a task.
        hidden: units a layer.

    Example:
        >>> encoder, z, y = TaskEncoder(3, 1, outputs=4), torch.randn(5, 3), torch.randn(5, 1)
        >>> encoder(z, y).detach()
        tensor([0., 0., 0., 0.])
    """

    def __init__(self, features: int, targets: int, outputs: int, hidden: int = 64) -> None:
        super().__init__()
        self.example = nn.Sequential(
            nn.Linear(features + targets, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
        )
        self.task = ends_in_zeros(
            nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
        )

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return self.task(self.example(torch.cat([z, y], -1)).mean(0))
