"""Random affine distortions of pictures, with the ranges of Koch, Zemel, Salakhutdinov 2015, section 3.2."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

ANGLE = math.radians(10)
SHEAR = 0.3
SCALE = 0.2
SHIFT = 2 / 52.5
"""2 of 105 pixels, in halves of a picture's side."""


def affine(*shape: int, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Random distortions `[*shape, 2, 3]`: rotation by up to 10 degrees, shears by up to 0.3, scales from 0.8
    to 1.2 and shifts by up to 2 of 105 pixels, each drawn uniformly and left out half of the time.

    Args:
        generator: where chance comes from.
        strength: what part of these ranges is used.

    >>> affine(3, 2, generator=torch.Generator()).shape
    torch.Size([3, 2, 2, 3])
    """
    drawn = strength * (2 * torch.rand(7, *shape, generator=generator) - 1)
    drawn *= torch.rand(7, *shape, generator=generator) < 0.5
    angle, shears, scales, shifts = ANGLE * drawn[0], SHEAR * drawn[1:3], 1 + SCALE * drawn[3:5], drawn[5:]
    turn = matrix([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    one = torch.ones_like(angle)
    shear = matrix([[one, shears[0]], [shears[1], one]])
    scale = torch.diag_embed(scales.movedim(0, -1))
    return torch.cat([turn @ shear @ scale, SHIFT * shifts.movedim(0, -1)[..., None]], -1)


def matrix(rows: list[list[Tensor]]) -> Tensor:
    """Numbers of any shape as 2×2 matrices of that shape."""
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def distorted(x: Tensor, by: Tensor) -> Tensor:
    """Pictures `[n, C, H, W]`, each distorted by one of `[n, 2, 3]`; beyond the edge they go on as at it.

    >>> x = torch.rand(1, 1, 4, 4)
    >>> torch.allclose(distorted(x, torch.eye(2, 3)[None]), x, atol=1e-6)
    True
    """
    down, right = ((2 * torch.arange(n).to(x) + 1) / n - 1 for n in x.shape[-2:])  # pixels, from -1 to 1
    across, along = torch.meshgrid(right, down, indexing="xy")  # [H, W] each
    places = torch.stack([across, along, torch.ones_like(along)], -1)  # [H, W, 3]
    # vmap has no rule for torch's own affine_grid.
    grid = places @ by.to(x.dtype).mT[:, None]  # [n, H, W, 2]
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)
