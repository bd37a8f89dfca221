"""Pictures as clients send them, decoded within bounds."""

from __future__ import annotations

import base64
import binascii
import io
import re
import warnings
from collections.abc import Sequence

from PIL import Image

from quickstudy.app.server.limits import Limits
from quickstudy.data.images import decode
from quickstudy.errors import DataError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""The only decoders that see what a client sent."""
PREFIX = re.compile(r"data:image/[a-z+.-]{1,20};base64,")


def pictures(data: Sequence[str], what: str, size: int, limits: Limits) -> list[Image.Image]:
    """Pictures of base64, brought to a size.

    Args:
        what: what each is called in messages: `image` 0, 1, ….

    Raises:
        DataError: no base64, no picture, a damaged one, or too many pixels, of one or of all together, which
            is told by their headers, before anything is decoded.
    """
    files = [io.BytesIO(raw(one, f"{what} {i}")) for i, one in enumerate(data)]
    if sum(map(stated, files)) > limits.together:
        most = limits.together // 10**6
        told = f"the pictures have more than {most} megapixels together"
        raise DataError(f"{told}; make them smaller, or send fewer")
    return [
        decode(file, size, named=f"{what} {i}", formats=FORMATS, limit=limits.pixels)
        for i, file in enumerate(files)
    ]


def raw(data: str, what: str) -> bytes:
    """What base64 stands for, with or without the beginning of a data: URL."""
    start = PREFIX.match(data, 0, 60)
    try:
        return base64.b64decode(data[start.end() if start else 0 :], validate=True)
    except (binascii.Error, ValueError):
        raise DataError(f"{what}: not base64") from None


def stated(file: io.BytesIO) -> int:
    """How many pixels a picture says it has; 0 where it says nothing, and is refused for that."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=FORMATS) as picture:
            return picture.width * picture.height
    except Exception:  # Pillow's decoders meet a damaged file with errors of a dozen types.
        return 0
    finally:
        file.seek(0)
