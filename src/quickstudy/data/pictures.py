"""Pictures brought to the form a net was trained on, from files, PIL images, arrays or flattened rows."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from quickstudy.data.arrays import examples
from quickstudy.data.images import Color, convert, plain, read_image, square
from quickstudy.data.polarity import Polarity, polarity, sides
from quickstudy.errors import DataError


@dataclass(frozen=True)
class Pictures:
    """What a net was trained on: a shape, and ink of one kind.

    Args:
        shape: `(C, H, W)`, C being 1 for grey or 3 for colour.
        polarity: whether ink was dark on light or light on dark; None where that was not clear.

    Raises:
        DataError: another number of channels, or less than a pixel.

    Example:
        >>> Pictures((1, 28, 28)).of(np.zeros((2, 784), np.uint8)).shape
        (2, 1, 28, 28)
    """

    shape: tuple[int, int, int]
    polarity: Polarity | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        if len(self.shape) != 3 or self.shape[0] not in (1, 3) or min(self.shape) < 1:
            raise DataError(f"pictures of shape {self.shape} are neither grey (1, H, W) nor colour (3, H, W)")

    def of(self, given: Any, white: float | None = None) -> np.ndarray:
        """Pictures of this shape `[n, C, H, W]`: uint8, or where floats of this size were given, fractions.

        Args:
            given: file names, or PIL images, or numbers: `[n, C, H, W]`, `[n, H, W, C]`, `[n, H, W]`, or
                rows `[n, D]` of flattened square pictures. What has another size is shrunk or enlarged as
                `read_image` does it, what has other colours is converted.
            white: the number that is white among floats, such as 1 or 255; by default what `white` finds.

        Raises:
            DataError: what is no picture; the message names it.
        """
        if (items := self.listed(given)) is not None:
            return np.stack([self.one(item) for item in items]) if items else self.none()
        x = self.numbers(given, white)
        if x.shape[1:] == self.shape:
            return x
        if x.dtype != np.uint8:
            x = (255 * x.clip(0, 1)).round().astype(np.uint8)
        return np.stack([self.one(picture(channels)) for channels in x]) if len(x) else self.none()

    def none(self) -> np.ndarray:
        """No pictures, `[0, C, H, W]`."""
        return np.zeros((0, *self.shape), np.uint8)

    def one(self, item: str | Path | Image.Image) -> np.ndarray:
        """A file or an image as uint8 `[C, H, W]`."""
        _, height, width = self.shape
        color: Color = "rgb" if self.shape[0] == 3 else "grey"
        if height != width:
            raise DataError(f"pictures of {height}×{width} are not square: give arrays of this size")
        if isinstance(item, Image.Image):
            return convert(square(plain(ImageOps.exif_transpose(item)), height), color)
        return read_image(item, height, color)

    @staticmethod
    def listed(given: Any) -> list[Any] | None:
        """Files or images one by one; None for numbers."""
        kinds = (str, Path, Image.Image)
        if isinstance(given, kinds):
            raise DataError("one picture where several were expected: give a list of them")
        if isinstance(given, np.ndarray) and given.dtype.kind not in "OUT":
            return None
        if isinstance(given, (Sequence, np.ndarray)) or hasattr(given, "to_list"):
            items = list(given)
            if not items:
                return []
            found = [isinstance(item, kinds) for item in items]
            if any(found):
                if not all(found):
                    raise DataError(f"example {found.index(False)} is neither a file name nor an image")
                return items
        return None

    @classmethod
    def white(cls, given: Any) -> float | None:
        """The number that is white in pictures of floats: 1 where none is above 2, 16, as in scikit-learn's
        digits, where none is above that, else 255; None of pixels and files, which say nothing of floats."""
        if cls.listed(given) is not None:
            return None
        x = examples(np.asarray(given) if hasattr(given, "to_numpy") else given, "pictures")
        if not x.is_floating_point() or x.numel() == 0:
            return None
        high = float(x.max())
        return 1.0 if high <= 2 else 16.0 if high <= 16 else 255.0

    def numbers(self, given: Any, white: float | None = None) -> np.ndarray:
        """Numbers as pictures `[n, C, H, W]` of their own size: uint8, or floats from 0 to 1."""
        if isinstance(given, Sequence):
            same_kind(given)
        x = examples(np.asarray(given) if hasattr(given, "to_numpy") else given, "pictures").detach().cpu()
        white = white or self.white(x) or 255.0
        if x.ndim == 2:
            x = examples(x.numpy().reshape(len(x), *self.unflattened(x.shape[1])), "pictures")
        if x.ndim == 3:
            x = x[:, None]
        if x.ndim != 4:
            raise DataError(f"examples of shape {tuple(x.shape[1:])} are no pictures: give [n, H, W, C]")
        if x.shape[1] not in (1, 3, 4):
            x = x.permute(0, 3, 1, 2)
        if x.shape[1] not in (1, 3, 4):
            raise DataError(f"pictures of {x.shape[1]} channels: 1, 3 or 4 are known")
        array = x.contiguous().numpy()
        if array.dtype == np.uint8:
            return array
        if not np.isfinite(array).all():
            raise DataError("pictures: a pixel is NaN or infinite")
        low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
        if low < 0 or high > white * (1 + 1e-3):
            raise DataError(f"pictures: numbers from {low:g} to {high:g}; from 0, black, to {white:g}, white")
        if white > 1 and 0 < high <= 1 and (array % 1).any():
            warnings.warn(
                f"pictures: no number is above {high:g}, where those before went up to {white:g}: they are "
                f"read as nearly black. If they are fractions, multiply by {white:g}",
                stacklevel=2,
            )
        return (array / white).astype(np.float32)

    def unflattened(self, count: int) -> tuple[int, ...]:
        """The shape of a picture of so many numbers: this one, or a square."""
        if count == math.prod(self.shape):
            return self.shape
        for channels in (1, 3):
            side = math.isqrt(count // channels)
            if side > 1 and channels * side * side == count:
                return channels, side, side
        shape = "×".join(map(str, self.shape))
        raise DataError(f"rows of {count} numbers are no square pictures: the net was trained on {shape}")

    def inverts(self, x: np.ndarray, given: Polarity | None = None) -> bool | None:
        """Whether pictures `[n, C, H, W]` are of the other polarity, so that black and white are to be
        exchanged; None where that cannot be seen.

        Examples decide for their queries too: inverting one of them alone would make the same thing look
        different, and a prediction would depend on the other queries if these were asked.

        Args:
            given: what they are, if that is known.
        """
        if self.polarity is None:
            return False
        found = given or polarity(x)
        return None if found is None else found != self.polarity


def same_kind(given: Sequence[Any]) -> None:
    """Refuse a list of arrays of whole numbers and of floats, which have no white in common.

    Raises:
        DataError: it is one.
    """
    floats = ["float" in str(item.dtype) for item in given if hasattr(item, "dtype")]
    if len(set(floats)) > 1:
        other = floats.index(not floats[0])
        raise DataError(
            f"pictures of whole numbers and of floats in one list, as examples 0 and {other}: give all as "
            "uint8, or all as fractions"
        )


def picture(channels: np.ndarray) -> Image.Image:
    """An image of pixels `[C, H, W]`, C being 1, 3 or 4."""
    return Image.fromarray(channels[0] if len(channels) == 1 else np.moveaxis(channels, 0, -1))


def inverted(x: np.ndarray) -> np.ndarray:
    """Pictures with black and white exchanged: pixels from 0 to 255, or fractions.

    >>> inverted(np.array([0, 255], np.uint8)), inverted(np.array([0.25]))
    (array([255,   0], dtype=uint8), array([0.75]))
    """
    return 255 - x if x.dtype == np.uint8 else 1 - x


def others(queries: np.ndarray, examples: np.ndarray) -> list[int]:
    """The queries that are clearly of another polarity than the examples: these are easily misread."""
    kind = polarity(examples)
    if kind is None:
        return []
    return np.flatnonzero(sides(queries)[1] == (-1 if kind == "dark-on-light" else 1)).tolist()
