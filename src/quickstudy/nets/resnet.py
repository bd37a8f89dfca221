"""A small residual net as a body (He et al. 2016, 1512.03385; widths in the manner of ResNet-12)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.errors import UserError
from quickstudy.nets.norm import make_norm


class Residual(nn.Module):
    """Three 3×3 convolutions beside a 1×1 one, then 2×2 pooling: `[B, C, H, W]` → `[B, D, H/2, W/2]`."""

    def __init__(self, inputs: int, width: int, norm: str) -> None:
        super().__init__()
        widths = [inputs, width, width, width]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(make_norm(norm, width) for _ in range(3))
        self.skip = nn.Conv2d(inputs, width, 1, bias=False)
        self.skip_norm = make_norm(norm, width)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = norm(conv(y))
            y = y + self.skip_norm(self.skip(x)) if i == 2 else y
            y = F.leaky_relu(y, 0.1)
        return F.max_pool2d(y, 2) if min(y.shape[-2:]) > 1 else y


class ResNet(nn.Sequential):
    """Residual blocks, then the average over positions."""

    def __init__(self, widths: Sequence[int], in_channels: int, norm: str) -> None:
        blocks = [Residual(a, b, norm) for a, b in zip([in_channels, *widths], widths, strict=False)]
        super().__init__(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.features = widths[-1]
        self.norm = norm


def resnet(
    widths: Sequence[int] = (32, 64, 128, 256), *, in_channels: int = 1, norm: str = "support"
) -> ResNet:
    """A residual body: `[B, in_channels, H, W]` → `[B, widths[-1]]`.

    Raises:
        UserError: no block, or one of no channel.

    >>> resnet((8, 16))(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 16])
    """
    if not widths or min(*widths, in_channels) < 1:
        raise UserError(f"resnet needs at least 1 block and 1 channel, not {(tuple(widths), in_channels)}")
    return ResNet(widths, in_channels, norm)
