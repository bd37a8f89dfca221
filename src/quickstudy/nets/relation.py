"""The relation module: Sung et al. 2018, arXiv 1711.06025, figure 2. It compares two feature maps."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from quickstudy.nets.conv import ConvBlock
from quickstudy.nets.mlp import mlp


class Relation(nn.Sequential):
    """Two maps on top of each other `[B, 2 C, H, W]` → scores `[B, 1]`, large where they belong together.

    Two convolution blocks, which pool while there is a map to be halved, a hidden layer and the score; for
    maps of one point linear layers, which is what convolutions of them are.

    Args:
        map_shape: C, H and W of one map.
        norm: whose statistics it normalises by, as `conv4` takes it.
        hidden: units of the hidden layer; 8 in the paper.

    >>> Relation((16, 7, 7), "support")(torch.rand(3, 32, 7, 7)).shape
    torch.Size([3, 1])
    """

    def __init__(self, map_shape: tuple[int, int, int], norm: str, hidden: int = 8) -> None:
        channels, *size = map_shape
        layers: list[nn.Module] = []
        if max(size) == 1:
            layers.append(mlp(2 * channels, (channels, channels), norm=norm))
        else:
            for inputs in (2 * channels, channels):
                halves = min(size) > 1
                layers.append(ConvBlock(inputs, channels, norm, pool=halves))
                size = [n // 2 if halves else n for n in size]
        last = channels * math.prod(size)
        super().__init__(*layers, nn.Flatten(), nn.Linear(last, hidden), nn.ReLU(), nn.Linear(hidden, 1))


def pairs(a: Tensor, b: Tensor) -> Tensor:
    """Each of the maps `[q, C, H, W]` on top of each of `[N, C, H, W]` → `[q * N, 2 C, H, W]`, q first.

    >>> pairs(torch.zeros(2, 1, 1, 1), torch.tensor([[[[3.0]]], [[[4.0]]]])).flatten(1)
    tensor([[0., 3.],
            [0., 4.],
            [0., 3.],
            [0., 4.]])
    """
    shape = (len(a), len(b), *a.shape[1:])
    return torch.cat([a[:, None].expand(shape), b[None].expand(shape)], 2).flatten(0, 1)
