"""Pictures as clients send them, decoded within bounds."""

from __future__ import annotations

import base64
import binascii
import io
import re

from PIL import Image

from quickstudy.app.server.limits import Limits
from quickstudy.data.images import decode
from quickstudy.errors import DataError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""The only decoders that see what a client sent."""
PREFIX = re.compile(r"data:image/[a-z+.-]{1,20};base64,")


def picture(data: str, what: str, size: int, limits: Limits) -> Image.Image:
    """A picture of base64, brought to a size.

    Args:
        what: what it is called in messages: `image 3`.

    Raises:
        DataError: no base64, no picture, a damaged one, or one of too many pixels, which is told by its
            header, before anything is decoded.
    """
    start = PREFIX.match(data, 0, 60)
    try:
        raw = base64.b64decode(data[start.end() if start else 0 :], validate=True)
    except (binascii.Error, ValueError):
        raise DataError(f"{what}: not base64") from None
    return decode(io.BytesIO(raw), size, named=what, formats=FORMATS, limit=limits.pixels)
