"""Embeddings that see the whole support set: Vinyals et al. 2016, arXiv 1606.04080, appendix A.

A support example's embedding g adds what an LSTM makes of all of them, read forwards and backwards, to its
own features z:

    gᵢ = h→ᵢ + h←ᵢ + zᵢ.

A query with features q looks at the support set K times, an LSTM keeping what it saw:

    rₖ = Σᵢ softmaxᵢ(hₖᵀ gᵢ) gᵢ,   ĥₖ₊₁, cₖ₊₁ = LSTM(q, [hₖ, rₖ], cₖ),   hₖ₊₁ = ĥₖ₊₁ + q.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quickstudy.nets.lstm import LSTMCell
from quickstudy.nets.scan import scan


class SupportContext(nn.Module):
    """A support set's features `[n, D]` → embeddings g `[n, D]` that know of each other.

    Args:
        features: D.

    >>> SupportContext(4)(torch.randn(6, 4)).shape
    torch.Size([6, 4])
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.forwards, self.backwards = LSTMCell(features, features), LSTMCell(features, features)

    def forward(self, z: Tensor) -> Tensor:
        onwards, _ = scan(self.forwards, z, self.forwards.start(z[0]))
        back, _ = scan(self.backwards, z.flip(0), self.backwards.start(z[0]))
        return onwards + back.flip(0) + z


class QueryContext(nn.Module):
    """Query features `[q, D]` and the support set's embeddings `[n, D]` → queries `[q, D]` that know of it.

    Args:
        features: D.
        steps: K, how often a query looks; at least 1.

    >>> QueryContext(4, steps=3)(torch.randn(5, 4), torch.randn(6, 4)).shape
    torch.Size([5, 4])
    """

    def __init__(self, features: int, steps: int) -> None:
        super().__init__()
        self.cell, self.steps = LSTMCell(2 * features, features), steps

    def forward(self, q: Tensor, g: Tensor) -> Tensor:
        h, c = self.cell.start(q)
        for _ in range(self.steps):
            seen = (h @ g.T).softmax(-1) @ g  # [q, D]
            # A cell with [h, r] for its last output is one with r for a further input.
            h, c = self.cell(torch.cat([q, seen], -1), (h, c))
            h = h + q
        return h
