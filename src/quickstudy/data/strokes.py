"""Pen strokes: read from Quick, Draw!'s ndjson files, and drawn into pictures after the publisher's recipe.

The recipe is the publisher's (github.com/googlecreativelab/quickdraw-dataset, on how its bitmaps were made):
a drawing in a box of 256, centred, with a pen of 16 and a margin of 16 beside half a pen, shrunk to 28x28.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy import ndarray
from PIL import Image, ImageDraw

from quickstudy.errors import DataError

BOX, PEN, MARGIN = 256, 16, 16
FINE = 16  # pixels drawn for each one kept, a side
LONGEST = 2**20  # bytes of a line that are still read


@dataclass(frozen=True, eq=False)
class Drawing:
    """One drawing of a Quick, Draw! file.

    Args:
        word: what the player was told to draw.
        recognized: whether the publisher's program guessed it.
        country: where the player was, two letters of ISO 3166-1.
        strokes: one float array `[n, 2]` a stroke, in the order of drawing: x to the right and y
            downwards, 0 to 255.
    """

    word: str
    recognized: bool
    country: str
    strokes: tuple[ndarray, ...]


def read_strokes(path: Path, count: int | None = None) -> list[Drawing]:
    """The first `count` drawings of an ndjson file of simplified drawings, or all; fewer if it has fewer.

    Raises:
        DataError: a line that is no drawing; the message names the file and the line.

    Example:
        >>> read_strokes(Path("simplified/ant.ndjson"), 20)[0].word  # doctest: +SKIP
        'ant'
    """
    return list(islice(_drawings(Path(path)), count))


def parse_drawing(line: bytes) -> Drawing:
    """The drawing that one line of an ndjson file describes.

    Raises:
        ValueError: it describes none; the message says what is wrong.

    Example:
        >>> line = b'{"word": "dash", "recognized": true, "countrycode": "NL", "drawing": [[[0, 9], [5, 5]]]}'
        >>> parse_drawing(line).strokes
        (array([[0., 5.],
               [9., 5.]]),)
    """
    try:
        content = json.loads(line.decode("utf-8"), parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")
    keys = ("word", "recognized", "countrycode", "drawing")
    word, recognized, country, strokes = (content.get(key) for key in keys)
    if not isinstance(word, str):
        raise ValueError('"word" is no text')
    if not isinstance(recognized, bool):
        raise ValueError('"recognized" is no truth value')
    if not isinstance(country, str) or not re.fullmatch("[A-Z]{2}", country):
        raise ValueError('"countrycode" is no two letters')
    if not isinstance(strokes, list) or not strokes:
        raise ValueError('"drawing" is no list of strokes')
    paths = tuple(_stroke(stroke, i) for i, stroke in enumerate(strokes, 1))
    return Drawing(word, recognized, country, paths)


def rasterise(strokes: Sequence[ndarray], size: int = 28) -> ndarray:
    """Draw strokes as the publisher's bitmaps are drawn: white on black, in the middle.

    Args:
        strokes: arrays `[n, 2]` of x and y, in a box of 256.
        size: the side of the picture in pixels.

    Returns:
        uint8 `[size, size]`.

    Raises:
        DataError: no strokes, or no pixels.

    Example:
        >>> rasterise([np.array([[0.0, 5.0], [255.0, 5.0]])])[13:15, 14]
        array([128, 255], dtype=uint8)
    """
    if not len(strokes) or size < 1:
        raise DataError(f"{len(strokes)} strokes cannot be drawn in {size}x{size} pixels")
    points = np.concatenate(strokes)
    scale = FINE * size / (BOX + 2 * MARGIN + PEN)
    middle = points.max(0) / 2  # the publisher takes the box to begin at 0, also where ink does not
    radius = PEN * scale / 2
    canvas = Image.new("L", (FINE * size, FINE * size))
    pen = ImageDraw.Draw(canvas)
    for stroke in strokes:
        path = (stroke - middle) * scale + FINE * size / 2 - 0.5  # a pixel's centre has whole coordinates
        pen.line([*map(tuple, path)], fill=255, width=round(2 * radius))
        for x, y in path:  # round ends and corners
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return np.asarray(canvas.reduce(FINE))


def _drawings(path: Path) -> Iterator[Drawing]:
    number = 0
    try:
        with path.open("rb") as file:
            while line := file.readline(LONGEST + 1):
                number += 1
                if len(line) > LONGEST:
                    raise ValueError(f"it is longer than {LONGEST} bytes")
                yield parse_drawing(line)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise DataError(f"{path}, line {number} is no drawing: {error}") from None


def _stroke(stroke: Any, number: int) -> ndarray:
    # Files of raw drawings have times as a third list, and coordinates of the screen.
    if not isinstance(stroke, list) or len(stroke) != 2 or not all(isinstance(axis, list) for axis in stroke):
        raise ValueError(f"stroke {number} is no pair of lists, x and y")
    xs, ys = stroke
    if len(xs) != len(ys) or not xs:
        raise ValueError(f"stroke {number} has {len(xs)} x and {len(ys)} y")
    for value in (*xs, *ys):
        if type(value) not in (int, float) or not 0 <= value < BOX:  # NaN fails this too
            raise ValueError(f"stroke {number} has {str(value)[:20]!r} where a number from 0 to 255 belongs")
    return np.array([xs, ys], dtype=np.float64).T


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"it has {constant}")
