"""Causal layers for a sequence that many may continue: temporal convolution and attention.

After SNAIL (Mishra et al. 2018, arXiv 1707.03141, figure 2). A layer takes the `past`, a sequence `[n, C]`,
and `now`, `[q, C]`: q elements each of which comes right after the past by itself, none seeing another. It
gives the outputs of both, those of the past computed once for all.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.nets.attention import attend


class DenseBlock(nn.Module):
    """A gated causal convolution of two taps, its output joined to its input (van den Oord et al. 2016).

    x ↦ [x, tanh(a) ⊙ σ(g)], where a and g are linear in an element and in the one `dilation` before it.

    Args:
        inputs: C.
        filters: F.
        dilation: how far back the second tap lies.

    >>> block = DenseBlock(3, 4, dilation=2)
    >>> past, now = block(torch.randn(5, 3), torch.randn(2, 3))
    >>> past.shape, now.shape
    (torch.Size([5, 7]), torch.Size([2, 7]))
    """

    def __init__(self, inputs: int, filters: int, dilation: int) -> None:
        super().__init__()
        self.dilation, self.outputs = dilation, inputs + filters
        self.here = nn.Linear(inputs, 2 * filters)
        self.before = nn.Linear(inputs, 2 * filters, bias=False)

    def forward(self, past: Tensor, now: Tensor) -> tuple[Tensor, Tensor]:
        before = self.before(F.pad(past, (0, 0, self.dilation, 0)))  # row t: of the element t - dilation
        n = len(past)
        return self.joined(past, before[:n]), self.joined(now, before[n])

    def joined(self, x: Tensor, before: Tensor) -> Tensor:
        """The block's output for elements `[n, C]` with what earlier ones give `[n, 2 F]`."""
        a, g = (self.here(x) + before).chunk(2, -1)
        return torch.cat([x, a.tanh() * g.sigmoid()], -1)


class TemporalBlock(nn.Module):
    """Dense blocks of dilations 1, 2, 4, … that together look `reach` elements back.

    Args:
        inputs: C.
        filters: of each dense block.
        reach: how many elements back.

    >>> TemporalBlock(3, 4, reach=5).outputs
    15
    """

    def __init__(self, inputs: int, filters: int, reach: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        self.outputs = inputs
        for i in range(max(1, math.ceil(math.log2(reach + 1)))):
            self.blocks.append(DenseBlock(self.outputs, filters, 2**i))
            self.outputs += filters

    def forward(self, past: Tensor, now: Tensor) -> tuple[Tensor, Tensor]:
        for block in self.blocks:
            past, now = block(past, now)
        return past, now


class CausalAttention(nn.Module):
    """Soft attention of each element to itself and those before it, what it reads joined to its input.

    Args:
        inputs: C.
        keys: width of keys and queries.
        values: width of what is read.

    >>> past, now = CausalAttention(3, 4, 5)(torch.randn(6, 3), torch.randn(2, 3))
    >>> past.shape, now.shape
    (torch.Size([6, 8]), torch.Size([2, 8]))
    """

    def __init__(self, inputs: int, keys: int, values: int) -> None:
        super().__init__()
        self.parts, self.outputs = [keys, keys, values], inputs + values
        self.project = nn.Linear(inputs, sum(self.parts))

    def forward(self, past: Tensor, now: Tensor) -> tuple[Tensor, Tensor]:
        n = len(past)
        query, key, value = self.project(past).split(self.parts, -1)
        asked, own_key, own_value = self.project(now).split(self.parts, -1)
        so_far = torch.ones(n, n, dtype=torch.bool, device=past.device).tril()
        read = attend(query, key, value, allowed=so_far)
        found = attend(asked, key, value, own=(own_key, own_value))
        return torch.cat([past, read], -1), torch.cat([now, found], -1)
