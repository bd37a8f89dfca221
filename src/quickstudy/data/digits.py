"""Ten handwritten digits, 1,797 pictures, that come with scikit-learn: nothing to download.

Alpaydin and Kaynak (1998), Optical recognition of handwritten digits, UCI Machine Learning Repository
(CC BY 4.0); the test part, as `sklearn.datasets.load_digits` gives it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from quickstudy.data.dataset import ClassDataset

SPLIT = ((0, 2, 3, 6), (1, 5, 9), (4, 7, 8))


def digits(*, size: int = 28) -> ClassDataset:
    """The digits 0 to 9, light ink on black, 174 to 183 pictures each.

    Args:
        size: the side in pixels; 8 is their own, above it they are enlarged bilinearly.

    Returns:
        10 classes "0" to "9", `x` uint8 `[1797, 1, size, size]`, and the split "default" of 4/3/3 digits.

    Example:
        >>> [len(part) for part in digits().split()]
        [4, 3, 3]
    """
    from sklearn.datasets import load_digits  # takes seconds to import

    bunch = load_digits()
    ink = np.round(bunch.images * (255 / 16)).astype(np.uint8)  # 17 levels in the file
    shape, filter = (size, size), Image.Resampling.BOX if size < 8 else Image.Resampling.BILINEAR
    pictures = np.stack([np.asarray(Image.fromarray(one).resize(shape, filter)) for one in ink])
    data = ClassDataset.from_arrays(pictures, bunch.target, name="digits")
    return replace(data, splits={"default": SPLIT}, note=f"ink 255 on 0, 8x8 to {size}x{size}")
