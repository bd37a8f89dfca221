"""Whether pictures are dark ink on light paper or the reverse, guessed from their borders."""

from __future__ import annotations

from typing import Literal

import numpy as np
from torch import Tensor

Polarity = Literal["dark-on-light", "light-on-dark"]

# Chosen between drawings (glyphs, digits, Omniglot, Quick, Draw!: 99 to 100 % of pictures are clear) and
# crops of photographs (at most 55 % one way).
PAPER = 0.4  # of a drawing's pixels are nearer to its paper than a quarter of the way to the darkest ink
ONE_WAY = 0.8  # how far the pixels leave the paper's grey to one side only: 1 for one side, 0 for both alike
AGREE = 0.75  # of the pictures


def polarity(x: Tensor | np.ndarray) -> Polarity | None:
    """The polarity of most of these pictures; None where they do not clearly agree on one.

    The median of the border is taken for paper. A picture is dark on light where much of it is paper and
    the rest, by the square of its contrast, almost all darker. Blank pictures say nothing; photographs
    and coloured pictures mostly have no clear polarity.

    Args:
        x: one picture `[C, H, W]` or many `[M, C, H, W]`, of any type and scale.

    Example:
        >>> page = np.full((1, 28, 28), 255, np.uint8)
        >>> page[0, 8:20, 14:16] = 0
        >>> polarity(page)
        'dark-on-light'
    """
    contrast, side = sides(np.asarray(x))
    side = side[contrast > 0.1 * contrast.max(initial=0)]
    least = AGREE * max(len(side), 1)
    if (side == 1).sum() >= least:
        return "dark-on-light"
    return "light-on-dark" if (side == -1).sum() >= least else None


def sides(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each picture `[M, C, H, W]` how far its pixels leave its paper's grey at most, and 1 where it is
    dark on light, −1 where it is light on dark, 0 where that is not clear: both `[M]`."""
    pictures = x.astype(np.float64)
    pictures = pictures.reshape(-1, *pictures.shape[-3:]).mean(1)  # [M, H, W]
    edges = [pictures[:, 0], pictures[:, -1], pictures[:, :, 0], pictures[:, :, -1]]
    paper = np.median(np.concatenate(edges, axis=1), axis=1)
    darker = paper[:, None] - pictures.reshape(len(pictures), -1)
    contrast = np.abs(darker).max(1, initial=0)
    is_drawing = (contrast > 0) & ((np.abs(darker) < contrast[:, None] / 4).mean(1) >= PAPER)
    total = np.maximum((darker**2).sum(1), np.finfo(np.float64).tiny)
    side = (darker * np.abs(darker)).sum(1) / total  # 1: all darker, -1: all lighter
    return contrast, np.where(is_drawing & (np.abs(side) >= ONE_WAY), np.sign(side), 0).astype(np.int64)
