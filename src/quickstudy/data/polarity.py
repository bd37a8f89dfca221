"""Whether pictures are dark ink on light paper or the reverse, guessed from their borders."""

from __future__ import annotations

from typing import Literal

import numpy as np
from torch import Tensor

Polarity = Literal["dark-on-light", "light-on-dark"]


def polarity(x: Tensor | np.ndarray) -> Polarity:
    """The polarity of most of these pictures.

    The border is taken for background; the picture is dark on light where its darkest pixels are farther
    from the border's median than its lightest. Two in a hundred pixels may be specks or glare.

    Args:
        x: one picture `[C, H, W]` or many `[M, C, H, W]`, of any type and scale.

    Example:
        >>> page = np.full((1, 28, 28), 255, np.uint8)
        >>> page[0, 8:20, 14:16] = 0
        >>> polarity(page)
        'dark-on-light'
    """
    pictures = np.asarray(x).astype(np.float64)
    pictures = pictures.reshape(-1, *pictures.shape[-3:]).mean(1)  # [M, H, W]
    edges = [pictures[:, 0], pictures[:, -1], pictures[:, :, 0], pictures[:, :, -1]]
    paper = np.median(np.concatenate(edges, axis=1), axis=1)
    low, high = np.percentile(pictures.reshape(len(pictures), -1), [2, 98], axis=1)
    votes = np.sign((paper - low) - (high - paper))  # 0 for a blank picture, which says nothing
    return "dark-on-light" if votes.sum() > 0 else "light-on-dark"
