"""What an `.npy` file of bytes begins with: enough to take rows out of one, here or on a server."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from quickstudy.errors import DataError

LONGEST = 10_000  # bytes of a header that are still read
# Just what numpy writes, under Python 2 with an L behind long numbers; its own reader also mends, with a
# warning, and evaluates.
HEADER = re.compile(
    rb"\{'descr': '(?P<kind>[<>|=]?\w+)', 'fortran_order': (?P<columns>True|False), "
    rb"'shape': \((?P<shape>|\d{1,15}L?,|\d{1,15}L?(, \d{1,15}L?)+)\), \}\s*"
)


def npy_header(content: bytes) -> tuple[int, tuple[int, ...] | None]:
    """Where the data of a uint8 `.npy` file begin, and their shape.

    Args:
        content: the first bytes of the file, any number of them.

    Returns:
        (offset, shape), or (at least how many bytes are needed, None) where the header goes on.

    Raises:
        ValueError: this is no .npy file, or not one of uint8 by rows.

    Example:
        >>> import io, numpy as np
        >>> buffer = io.BytesIO()
        >>> np.save(buffer, np.zeros((3, 784), np.uint8))
        >>> npy_header(buffer.getvalue()), npy_header(b"")
        ((128, (3, 784)), (10, None))
    """
    magic, version = content[:6], content[6:8]
    if magic != b"\x93NUMPY"[: len(magic)] or version not in (b"", b"\1", b"\2", b"\1\0", b"\2\0"):
        raise ValueError(f"it is no .npy file: it begins with {content[:8]!r}")
    field = 4 if version[:1] == b"\2" else 2
    if len(content) < 8 + field:
        return 8 + field, None
    offset = 8 + field + int.from_bytes(content[8 : 8 + field], "little")
    if offset > LONGEST:
        raise ValueError(f"its header of {offset} bytes is damaged")
    if len(content) < offset:
        return offset, None
    header = HEADER.fullmatch(content[8 + field : offset])
    if not header:
        raise ValueError("its header is damaged")
    shape = tuple(int(n.rstrip(b" L")) for n in header["shape"].split(b",") if n.strip())
    if header["kind"][-2:] != b"u1" or header["columns"] == b"True":
        by = " by columns" * (header["columns"] == b"True")
        raise ValueError(f"it holds {header['kind'].decode()} {list(shape)}{by}, not uint8 by rows")
    return offset, shape


def read_rows(path: Path, width: int) -> np.ndarray:
    """The rows of a uint8 `.npy` file, `[n, width]`, mapped into memory.

    Raises:
        DataError: the file is damaged, or holds something else.
    """
    try:
        with path.open("rb") as file:
            start, shape = npy_header(file.read(LONGEST))
        size = path.stat().st_size
        if shape is None or size < start + math.prod(shape):
            raise ValueError(f"it ends after {size} bytes")
        if shape[1:] != (width,):
            raise ValueError(f"it holds {list(shape)}, not [n, {width}]")
        return np.memmap(path, np.uint8, "r", start, shape) if shape[0] else np.zeros(shape, np.uint8)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be used: {error}; remove it, try again") from None
