"""Nearest neighbour on blurred pixels: the floor that needs no network."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.learners.base import Learner, Predictor
from quickstudy.learners.protonet import squared_distances
from quickstudy.tasks.task import Support


class PixelNN(Learner):
    """The class of the nearest support picture, by squared distance of Gaussian-blurred pixels.

    Args:
        blur: standard deviation in pixels; 0 compares the pixels as they are.
    """

    trains_on = "nothing"

    def __init__(self, *, blur: float = 1.5) -> None:
        super().__init__()
        self.blur = blur

    def learn(self, support: Support) -> Predictor:
        classes, blur = torch.arange(support.ways, device=support.y.device), self.blur
        apart = torch.where(support.y == classes[:, None], 0.0, math.inf)  # [N, n]
        a = blurred(support.x, blur)  # [n, D]

        def predict(x: Tensor) -> Tensor:
            d = squared_distances(blurred(x, blur), a)  # [q, n]
            return -(d[:, None] + apart).amin(-1)  # [q, N]

        return Predictor(predict, support.way)

    def settings(self) -> list[dict[str, Any]]:
        return [{"blur": b} for b in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)]


def blurred(x: Tensor, blur: float) -> Tensor:
    """Pictures `[n, C, H, W]` → `[n, C*H*W]`; a bell of 3 standard deviations, nothing beyond the edge."""
    if x.ndim < 4 or blur <= 0:
        return x.flatten(1)
    reach, c = math.ceil(3 * blur), x.shape[1]
    bell = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device) / blur) ** 2)
    bell = (bell / bell.sum()).repeat(c, 1, 1, 1)  # [C, 1, 1, 2r+1]
    y = F.conv2d(x, bell, padding=(0, reach), groups=c)
    return F.conv2d(y, bell.transpose(-1, -2), padding=(reach, 0), groups=c).flatten(1)
