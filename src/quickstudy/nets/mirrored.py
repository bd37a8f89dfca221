"""A body that does not tell a picture from its mirror image: the mean over a group (Cohen and Welling 2016,
arXiv 1602.07576, section 6.3, where only the last layer is averaged)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from quickstudy.errors import UserError


class Mirrored(nn.Module):
    """Features `[B, D]`, the mean of those of each picture `[B, C, H, W]` and of its mirror image.

    For pictures that mean the same mirrored, drawings of things among them, but not for letters. It is for
    answering, where a pass takes twice as long; in meta-training a picture passes as it is, and is to be
    mirrored by chance (`Distortion.flip`).

    Args:
        body: the net, which states its `features`.

    Raises:
        UserError: the body's features are maps, places of which would be mixed up.

    >>> from quickstudy.nets import conv4
    >>> body, x = Mirrored(conv4(8)).eval(), torch.rand(3, 1, 28, 28)
    >>> torch.allclose(body(x), body(x.flip(-1)), atol=1e-6)
    True
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        maps = getattr(body, "map_shape", None)
        if maps is not None and tuple(maps[1:]) != (1, 1):
            raise UserError(f"a mirrored body needs one number a feature, not maps of {maps[1]}×{maps[2]}")
        self.body = body
        self.features: Any = getattr(body, "features", None)
        self.norm: Any = getattr(body, "norm", None)

    def forward(self, x: Tensor) -> Any:
        if self.training:
            return self.body(x)
        return torch.stack(self.body(torch.cat([x, x.flip(-1)])).chunk(2)).mean(0)
