"""The four-block convolutional net of few-shot learning (Vinyals et al. 2016, 1606.04080, section 3)."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.errors import UserError
from quickstudy.nets.fused import Block, Convolution
from quickstudy.nets.native import Native, native
from quickstudy.nets.norm import BatchNorm, make_norm


class ConvBlock(nn.Module):
    """3×3 convolution → normalisation → ReLU → 2×2 max pooling: `[B, C, H, W]` → `[B, D, H/2, W/2]`.

    Pooling and ReLU commute with a positive scale, so with batch normalisation the block pools first and
    then scales: the same function with a quarter of the elementwise work, there and back. Where a scale is
    negative its sign goes into the filters.
    """

    def __init__(self, inputs: int, channels: int, norm: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, channels, 3, padding=1)
        self.norm = make_norm(norm, channels)

    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(self.norm, BatchNorm):
            return F.max_pool2d(F.relu(self.norm(self.conv(x))), 2)
        sign = self.norm.sign()
        assert self.conv.bias is not None
        y = F.conv2d(x, self.conv.weight * sign.view(-1, 1, 1, 1), self.conv.bias * sign, padding=1)
        y, scale, shift = self.norm.unscaled(y, sign)
        return F.relu(F.max_pool2d(y, 2) * scale.view(-1, 1, 1) + shift.view(-1, 1, 1))

    def examples_last(self, kernels: Native, x: Tensor) -> Tensor:
        """The same function of `[C, H, W, B]`, to `[D, H/2, W/2, B]`.

        A batch's own mean takes the convolution's bias away again, whose gradient so is zero.
        """
        norm, weight, bias = self.norm, self.conv.weight, self.conv.bias
        assert isinstance(norm, BatchNorm)
        assert bias is not None
        if norm.fused(x.numel() // x.shape[0]):
            h, mean, var, *_ = Block.apply(kernels, x, weight, norm.weight, norm.bias, norm.eps)
            norm.note(mean + bias.detach(), var)
            return h
        sign = norm.sign()
        y = Convolution.apply(kernels, x, weight * sign.view(-1, 1, 1, 1), False) + (bias * sign).view(
            -1, 1, 1, 1
        )
        y, scale, shift = norm.unscaled(y.permute(3, 0, 1, 2), sign)
        pooled = F.max_pool2d(y.permute(1, 0, 2, 3), 2)  # [D, B, H/2, W/2]
        z = F.relu(pooled * scale.view(-1, 1, 1, 1) + shift.view(-1, 1, 1, 1))
        return z.permute(0, 2, 3, 1).contiguous()


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

    def forward(self, input: Tensor) -> Tensor:
        blocks = self.blocks(input)
        kernels = native(input, *self.parameters()) if blocks else None
        if kernels is None:
            return super().forward(input)
        x = input.permute(1, 2, 3, 0).contiguous()  # [C, H, W, B]
        for block in blocks:
            x = block.examples_last(kernels, x)
        return x.permute(3, 0, 1, 2).flatten(1)

    def blocks(self, x: Tensor) -> list[ConvBlock]:
        """The blocks, if this is still what it was made as and the pictures fit; else none."""
        *rest, last = self
        blocks = [b for b in rest if type(b) is ConvBlock and type(b.norm) is BatchNorm]
        hooked = any(b._forward_hooks or b._forward_pre_hooks for b in blocks)
        if len(blocks) < len(rest) or type(last) is not nn.Flatten or hooked:
            return []
        fits = x.ndim == 4 and len(x) > 0 and min(x.shape[2:]) >> len(blocks) >= 1
        return blocks if fits and x.shape[1] == blocks[0].conv.in_channels else []


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
