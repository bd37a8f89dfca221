"""The four-block convolutional net of few-shot learning (Vinyals et al. 2016, 1606.04080, section 3)."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.errors import UserError
from quickstudy.nets.block import conv_norm_pool, has_hooks
from quickstudy.nets.norm import BatchNorm, make_norm
from quickstudy.nets.per_step import PerStep


class ConvBlock(nn.Module):
    """3×3 convolution → normalisation → ReLU → 2×2 max pooling: `[B, C, H, W]` → `[B, D, H/2, W/2]`.

    Args:
        inputs: C.
        channels: D.
        norm: whose statistics it normalises by, as `conv4` takes it.
        pool: whether it ends by pooling.
    """

    def __init__(self, inputs: int, channels: int, norm: str, pool: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, channels, 3, padding=1)
        self.norm = make_norm(norm, channels)
        self.pool = pool
        self.native = pool and isinstance(self.norm, BatchNorm)

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        if not self.pool:
            return F.relu(norm(self.conv(x)))
        if isinstance(norm, (BatchNorm, PerStep)) and not (has_hooks(self.conv) or has_hooks(norm)):
            return conv_norm_pool(x, self.conv, norm)
        return F.max_pool2d(F.relu(self.norm(self.conv(x))), 2)


class Conv4(nn.Sequential):
    """Blocks, then flatten; `features` is the width of what comes out, `map_shape` `(C, H, W)` what it was
    before, `norm` how it normalises."""

    def __init__(
        self, channels: int, in_channels: int, size: int, norm: str, blocks: int, halvings: int
    ) -> None:
        widths = pairwise([in_channels] + [channels] * blocks)
        layers = [ConvBlock(a, b, norm, pool=i < halvings) for i, (a, b) in enumerate(widths)]
        super().__init__(*layers, nn.Flatten())
        self.map_shape = (channels, size >> halvings, size >> halvings)
        self.features = math.prod(self.map_shape)
        self.norm = norm
        if norm not in ("group", "layer"):  # torch cannot map these over tasks in this layout
            # The layout in which CPU convolutions are fastest.
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's stub


def conv4(
    channels: int = 64,
    *,
    in_channels: int = 1,
    size: int = 28,
    norm: str = "support",
    blocks: int = 4,
    halvings: int | None = None,
) -> Conv4:
    """The 4-block conv net as a body: `[B, in_channels, size, size]` → `[B, features]`.

    Args:
        channels: filters a block; 64 in most papers, 20 or 32 where overfitting or speed matters.
        in_channels: 1 for grey, 3 for colour.
        size: height and width; each block halves it, 28 → 1 × 1.
        norm: whose statistics normalise a query: "batch" (transductive), "support", "running"; or "group",
            "layer", which look at one example only.
        blocks: how many blocks; `size` must survive halving that often.
        halvings: how many blocks, the first ones, halve their input; by default all. Learners that compare
            feature maps want maps to be left: two halvings of 28 × 28 leave 7 × 7.

    >>> conv4(32)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 32])
    >>> conv4(32, halvings=2).map_shape
    (32, 7, 7)
    """
    if min(channels, in_channels, blocks) < 1:
        raise UserError(f"conv4 needs at least 1 channel and 1 block, not {(channels, in_channels, blocks)}")
    halvings = blocks if halvings is None else halvings
    if not 0 <= halvings <= blocks:
        raise UserError(f"halvings must be from 0 to {blocks}, the number of blocks, not {halvings}")
    if size >> halvings < 1:
        raise UserError(f"pictures of {size}×{size} are too small for {halvings} blocks that halve them")
    return Conv4(channels, in_channels, size, norm, blocks, halvings)
