"""The four-block convolutional net of few-shot learning (Vinyals et al. 2016, 1606.04080, section 3)."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.errors import UserError
from quickstudy.nets.block import conv_norm_pool, watched
from quickstudy.nets.norm import BatchNorm, make_norm
from quickstudy.nets.per_step import PerStep


class ConvBlock(nn.Module):
    """3×3 convolution → normalisation → ReLU → 2×2 max pooling: `[B, C, H, W]` → `[B, D, H/2, W/2]`."""

    def __init__(self, inputs: int, channels: int, norm: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, channels, 3, padding=1)
        self.norm = make_norm(norm, channels)
        self.native = isinstance(self.norm, BatchNorm)

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        if isinstance(norm, (BatchNorm, PerStep)) and not (watched(self.conv) or watched(norm)):
            return conv_norm_pool(x, self.conv, norm)
        return F.max_pool2d(F.relu(self.norm(self.conv(x))), 2)


class Conv4(nn.Sequential):
    """Blocks, then flatten; `features` is the width of what comes out, `norm` how it normalises."""

    def __init__(self, channels: int, in_channels: int, size: int, norm: str, blocks: int) -> None:
        widths = [in_channels] + [channels] * blocks
        super().__init__(*(ConvBlock(a, b, norm) for a, b in pairwise(widths)), nn.Flatten())
        self.features = channels * (size >> blocks) ** 2
        self.norm = norm
        if norm not in ("group", "layer"):  # torch cannot map these over tasks in this layout
            # The layout in which CPU convolutions are fastest; torch's stub of `to` leaves it out.
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def conv4(
    channels: int = 64, *, in_channels: int = 1, size: int = 28, norm: str = "support", blocks: int = 4
) -> Conv4:
    """The 4-block conv net as a body: `[B, in_channels, size, size]` → `[B, features]`.

    Args:
        channels: filters a block; 64 in most papers, 20 or 32 where overfitting or speed matters.
        in_channels: 1 for grey, 3 for colour.
        size: height and width; each block halves it, 28 → 1 × 1.
        norm: whose statistics normalise a query: "batch" (transductive), "support", "running"; or "group",
            "layer", which look at one example only.
        blocks: how many blocks; `size` must survive halving that often.

    >>> conv4(32)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 32])
    """
    if min(channels, in_channels, blocks) < 1:
        raise UserError(f"conv4 needs at least 1 channel and 1 block, not {(channels, in_channels, blocks)}")
    if size >> blocks < 1:
        raise UserError(f"pictures of {size}×{size} are too small for {blocks} blocks that halve them")
    return Conv4(channels, in_channels, size, norm, blocks)
