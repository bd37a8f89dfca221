"""The relation module: Sung et al. 2018, arXiv 1711.06025, figure 2. It compares two feature maps."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.nets.conv import ConvBlock
from quickstudy.nets.norm import make_norm


class Relation(nn.Module):
    """Scores `[q, N]` of maps `[q, C, H, W]` beside maps `[N, C, H, W]`, large where two belong together.

    Two maps on top of each other go through two convolution blocks, which pool while there is a map to be
    halved, a hidden layer and the score; maps of one point through linear layers, which is what convolutions
    of them are. The first layer is linear in the two maps: it is computed of each, not of each pair.

    Args:
        map_shape: C, H and W of one map.
        norm: whose statistics it normalises by, as `conv4` takes it.
        hidden: units of the hidden layer; 8 in the paper.

    >>> import torch
    >>> Relation((16, 7, 7), "support")(torch.rand(3, 16, 7, 7), torch.rand(5, 16, 7, 7)).shape
    torch.Size([3, 5])
    """

    def __init__(self, map_shape: tuple[int, int, int], norm: str, hidden: int = 8) -> None:
        super().__init__()
        channels, *size = map_shape
        self.point = max(size) == 1
        self.first: nn.Linear | nn.Conv2d
        layers: list[nn.Module] = [make_norm(norm, channels), nn.ReLU()]
        if self.point:
            self.first = nn.Linear(2 * channels, channels)
            layers += [nn.Linear(channels, channels), make_norm(norm, channels), nn.ReLU()]
        else:
            self.first = nn.Conv2d(2 * channels, channels, 3, padding=1)
            halved = halves(size)
            layers += [nn.MaxPool2d(2)] if halved != size else []
            layers += [ConvBlock(channels, channels, norm, pool=halves(halved) != halved)]
            size = halves(halved)
        last = channels * math.prod(size)
        self.rest = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(last, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        of_a, of_b = self.first.weight.chunk(2, 1)
        if self.point:
            pairs = F.linear(a.flatten(1), of_a, self.first.bias)[:, None] + F.linear(b.flatten(1), of_b)
        else:
            found = F.conv2d(a, of_a, self.first.bias, padding=1)
            pairs = found[:, None] + F.conv2d(b, of_b, padding=1)  # [q, N, C, H, W]
        return self.rest(pairs.flatten(0, 1)).view(a.shape[0], b.shape[0])


def halves(size: list[int]) -> list[int]:
    """Height and width after pooling, where there is something to be halved.

    >>> halves([7, 7]), halves([5, 1])
    ([3, 3], [5, 1])
    """
    return [n // 2 for n in size] if min(size) > 1 else size
