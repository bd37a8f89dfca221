"""One picture file, of whatever kind, as the uint8 array a net is given."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from quickstudy.errors import DataError, unknown

Color = Literal["grey", "rgb"]

LIMIT = 80_000_000
"""Pictures of more pixels are refused before a byte of them is decoded."""

# These start another program, or have no decoder in Pillow itself.
_UNWANTED = {"EPS", "HDF5", "BUFR", "GRIB", "WMF", "MPEG"}
_ALPHA = {"RGBA", "LA", "PA", "La", "RGBa"}

Image.init()
FORMATS = tuple(sorted(set(Image.OPEN) - _UNWANTED))
SUFFIXES = frozenset(s for s, kind in Image.registered_extensions().items() if kind in FORMATS)
"""The file name endings, in small letters, of the formats that are read."""


def read_image(
    path: str | Path, size: int | None = 28, color: Color = "grey", invert: bool = False
) -> np.ndarray:
    """The picture in a file: turned as its EXIF data say, on white where transparent, shrunk, padded square.

    The longer side becomes `size` (area average when shrinking, bilinear when enlarging) and the shorter
    one is padded on both ends with the median colour of the border.

    Args:
        path: a file of any format Pillow decodes; of an animation, the first picture. Sixteen-bit
            pixels count as 0 to 65535, floating point ones as 0 to 1.
        size: the side in pixels; None keeps the picture's own height and width.
        color: "grey" or "rgb".
        invert: whether black becomes white.

    Returns:
        uint8 `[C, H, W]`, C being 1 or 3.

    Raises:
        DataError: the file cannot be read, is no picture, is cut off, or is of more than 80 megapixels.

    Example:
        >>> read_image("photo.jpg", size=84, color="rgb").shape  # doctest: +SKIP
        (3, 84, 84)
    """
    return convert(decode(path, size), color, invert)


def convert(picture: Image.Image, color: Color, invert: bool = False) -> np.ndarray:
    """uint8 `[C, H, W]` of a picture of mode "L" or "RGB"."""
    if color not in ("grey", "rgb"):
        raise unknown("color", color, ["grey", "rgb"])
    array = np.asarray(picture.convert("L" if color == "grey" else "RGB"))
    array = array[None] if color == "grey" else array.transpose(2, 0, 1)
    return np.ascontiguousarray(255 - array if invert else array)


def decode(
    path: str | Path | BinaryIO,
    size: int | None,
    *,
    named: str | None = None,
    formats: tuple[str, ...] = FORMATS,
    limit: int = LIMIT,
) -> Image.Image:
    """The picture in a file, of mode "L" or "RGB"; like `read_image` in all else.

    Args:
        path: the file, or what it holds.
        named: what it is called in messages; by default its path.
        formats: the only ones that are tried.
        limit: of pixels.
    """
    named = str(path) if named is None else named
    try:
        with Image.open(path, formats=formats) as picture:
            if picture.width * picture.height > limit:
                raise Image.DecompressionBombError
            return square(plain(ImageOps.exif_transpose(picture)), size)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(
            f"{named}: the picture has more than {limit // 10**6} megapixels; make it smaller"
        ) from None
    except UnidentifiedImageError:
        raise DataError(f"{named}: not a picture, whatever its name says; remove or replace it") from None
    except PermissionError:
        raise DataError(f"{named}: no permission to read it") from None
    except FileNotFoundError:
        raise DataError(f"{named}: there is no such file") from None
    except IsADirectoryError:
        raise DataError(f"{named}: a folder, where a picture was expected") from None
    # Pillow's decoders meet a damaged file with errors of a dozen types.
    except Exception as error:
        raise DataError(f"{named}: the picture is damaged or cut off ({error}); replace it") from None


def plain(picture: Image.Image) -> Image.Image:
    """The same picture in mode "L" or "RGB": every depth brought to 8 bits, on white where transparent."""
    if picture.mode.startswith("I"):
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"its pixels reach from {values.min()} to {values.max()}, not 0 to 65535")
        return Image.fromarray((values / 257 + 0.5).astype(np.uint8))
    if picture.mode == "F":
        values = np.asarray(picture)
        if not (values.min() >= 0 and values.max() <= 1):
            raise ValueError(f"its pixels reach from {values.min()} to {values.max()}, not 0 to 1")
        return Image.fromarray((values * 255 + 0.5).astype(np.uint8))
    if picture.mode in _ALPHA or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("L" if picture.mode in ("1", "L") else "RGB")


def square(picture: Image.Image, size: int | None) -> Image.Image:
    """A picture of mode "L" or "RGB" shrunk or enlarged until its longer side is `size`, padded square."""
    if size is None or picture.size == (size, size):
        return picture
    scale = size / max(picture.size)
    shape = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    small = picture.resize(shape, Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR)
    if shape == (size, size):
        return small
    pixels = np.asarray(small)
    colour = np.median(border(pixels), axis=0).round().astype(int)
    canvas = Image.new(small.mode, (size, size), int(colour) if colour.ndim == 0 else tuple(colour.tolist()))
    canvas.paste(small, ((size - shape[0]) // 2, (size - shape[1]) // 2))
    return canvas


def border(pixels: np.ndarray) -> np.ndarray:
    """The outermost pixels of `[H, W]` or `[H, W, C]`, in one row `[border]` or `[border, C]`."""
    return np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
