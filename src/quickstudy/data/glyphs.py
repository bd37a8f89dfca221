"""Glyphs: as many made-up handwritten characters as are wanted, drawn in memory.

A class is a character: two to four curved strokes, each hung on an earlier one at some place along it. An
example is that character redrawn by one hand, which slants, rounds, presses and trembles in its own way in
every character it draws; control points, joints and the whole figure move anew each time. What stays is
the order of turns and where the strokes meet, and that is what a learner has to find out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy import ndarray

from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import DataError

STROKES, CONTROLS, POINTS = 4, 5, 32  # at most, a stroke, a stroke
CHARACTER, HAND, EXAMPLE = range(3)  # the streams of chance
FAMILY = 4  # classes that share all but one stroke

# Standard deviations of what a hand does; half of the variance is the hand's, half the moment's.
ROTATION, SLANT, ASPECT, SCALE, SHIFT = 0.2, 0.25, 0.15, 0.12, 0.06
JITTER, JOINT, WOBBLE, PEN, ROUND = 0.03, 0.04, 0.004, 0.2, 0.3
STYLE, LOOSE = 7, STROKES * (CONTROLS * 2 + 1 + 8)  # numbers a hand, numbers an example besides


@dataclass(frozen=True)
class Skeletons:
    """What makes characters: `[C, ...]` arrays, strokes in the order of writing.

    Args:
        turns: the control points of each stroke, from its start: `[C, S, K, 2]`.
        live: whether the character has that stroke, `[C, S]`.
        parent: the earlier stroke it hangs on, `[C, S]`.
        at: where along the parent, and where along itself, 0 to 1: `[C, S, 2]`.
        apart: how far it is lifted off the parent there, `[C, S, 2]`.
        rounded: 0 for corners at the control points, 1 for curves, `[C, S]`.
    """

    turns: ndarray
    live: ndarray
    parent: ndarray
    at: ndarray
    apart: ndarray
    rounded: ndarray


def _chance(seed: int, stream: int, index: int) -> np.random.Generator:
    """A stream of its own for every (seed, stream, index), whatever else is drawn."""
    key = np.array([seed % 2**64, 4 * index + stream], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def _basis() -> tuple[ndarray, ndarray]:
    """What takes control points to points on the pen path, `[P, K]` each: polyline, Catmull-Rom."""
    u = np.linspace(0, CONTROLS - 1, POINTS)
    i = np.minimum(u.astype(int), CONTROLS - 2)
    t = u - i
    eye = np.eye(CONTROLS)
    ends = np.concatenate([2 * eye[:1] - eye[1:2], eye, 2 * eye[-1:] - eye[-2:-1]])
    a, b, c, d = (ends[i + k] for k in range(4))
    t = t[:, None]
    smooth = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    return (1 - t) * b + t * c, smooth


CORNERED, CURVED = _basis()


def _skeletons(classes: ndarray, seed: int) -> Skeletons:
    """The characters of these classes: those of a family differ in one stroke."""
    per = STROKES * (CONTROLS + 9)
    u = np.stack([_chance(seed, CHARACTER, 2 * (c // FAMILY)).random(per + 1) for c in classes])
    mine = np.stack([_chance(seed, CHARACTER, 2 * c + 1).random(per) for c in classes])
    count = 2 + (u[:, -1:] > 0.25) + (u[:, -1:] > 0.7)  # 2, 3 or 4 strokes
    u, mine = u[:, :-1].reshape(-1, STROKES, CONTROLS + 9), mine.reshape(-1, STROKES, CONTROLS + 9)
    changed = (classes * 7 // 3 + classes) % count[:, 0]  # which stroke is the class's own
    u = np.where((np.arange(STROKES) == changed[:, None])[..., None], mine, u)
    curl = np.array([-1.15, -0.6, 0.0, 0.0, 0.6, 1.15])[(u[..., 0] * 6).astype(int)]
    heading = 2 * np.pi * u[..., 1:2] + np.cumsum(
        curl[..., None] + 1.3 * (u[..., 2 : CONTROLS + 1] - 0.5), -1
    )
    step = (0.13 + 0.14 * u[..., CONTROLS + 1, None]) * np.ones(CONTROLS - 1)
    moves = step[..., None] * np.stack([np.cos(heading), np.sin(heading)], -1)
    turns = np.concatenate([np.zeros_like(moves[..., :1, :]), np.cumsum(moves, -2)], -2)
    earlier = np.maximum(np.arange(STROKES), 1)
    lift = np.where(u[..., CONTROLS + 2] < 0.15, 0.16, 0.0)
    angle = 2 * np.pi * u[..., CONTROLS + 3]
    places = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    at = places[(u[..., CONTROLS + 4 : CONTROLS + 6] * 5).astype(int)]
    at[..., 1] = np.where(u[..., CONTROLS + 6] < 0.6, 0.0, at[..., 1])  # mostly by its start
    return Skeletons(
        turns=turns,
        live=np.arange(STROKES) < count,
        parent=(u[..., CONTROLS + 7] * earlier).astype(int),
        at=at,
        apart=lift[..., None] * np.stack([np.cos(angle), np.sin(angle)], -1),
        rounded=np.where(u[..., CONTROLS + 8] < 0.3, 0.1, 1.0),
    )


def _paths(classes: ndarray, samples: int, seed: int) -> tuple[ndarray, ndarray, ndarray]:
    """The pen paths `[C, J, S, P, 2]` in 0..1, which strokes there are `[C, S]`, and pens `[C, J]`."""
    bones = _skeletons(classes, seed)
    hands = np.stack([_chance(seed, HAND, j).standard_normal(STYLE) for j in range(samples)])
    draws = np.stack([_chance(seed, EXAMPLE, c).standard_normal((samples, STYLE + LOOSE)) for c in classes])
    style = (hands + draws[..., :STYLE]) * 0.5**0.5  # [C, J, STYLE]
    loose = draws[..., STYLE:].reshape(*draws.shape[:2], STROKES, -1)
    rotation, slant, aspect, scale, pen, round, tremble = np.moveaxis(np.clip(style, -2.2, 2.2), -1, 0)

    controls = bones.turns[:, None] + JITTER * loose[..., : 2 * CONTROLS].reshape(
        *loose.shape[:3], CONTROLS, 2
    )
    smooth = np.clip(bones.rounded[:, None] + ROUND * round[..., None], 0, 1.2)[..., None, None]
    path = smooth * (CURVED @ controls) + (1 - smooth) * (CORNERED @ controls)  # [C, J, S, P, 2]
    waves = loose[..., -8:].reshape(*loose.shape[:3], 2, 4)  # sine and cosine of two frequencies
    t = np.pi * np.linspace(0, 1, POINTS)[:, None] * np.array([2.0, 3.5])
    shake = np.concatenate([np.sin(t), np.cos(t)], -1) @ waves.swapaxes(-1, -2)  # [C, J, S, P, 2]
    path = path + WOBBLE * np.exp(0.5 * tremble)[..., None, None, None] * shake

    where = bones.at[:, None] + JOINT * loose[..., 2 * CONTROLS, None] * (bones.at[:, None] * 0 + [1, 0])
    where = np.rint(np.clip(where, 0, 1) * (POINTS - 1)).astype(int)  # [C, J, S, 2]
    c, j = np.ogrid[: len(classes), :samples]
    for s in range(1, STROKES):
        own = path[c, j, s, where[..., s, 1]]
        joint = path[c, j, bones.parent[:, s, None], where[..., s, 0]]
        path[:, :, s] += (joint + bones.apart[:, None, s] - own)[:, :, None]

    live = bones.live[:, None, :, None, None]

    def box(path: ndarray) -> tuple[ndarray, ndarray]:
        low = np.where(live, path, np.inf).min((-3, -2), keepdims=True)
        high = np.where(live, path, -np.inf).max((-3, -2), keepdims=True)
        return low, high

    low, high = box(path)
    path = (path - (low + high) / 2) / np.maximum((high - low).max(-1, keepdims=True), 0.3)
    cos, sin = np.cos(ROTATION * rotation), np.sin(ROTATION * rotation)
    wide, tall = np.exp(ASPECT * aspect), np.exp(-ASPECT * aspect)
    lean = SLANT * slant
    # rotation @ slant @ aspect; y grows downwards, so a positive slant leans to the right
    matrix = np.stack(
        [cos * wide, (-cos * lean - sin) * tall, sin * wide, (cos - sin * lean) * tall], -1
    ).reshape(*cos.shape, 1, 2, 2)
    path = path @ matrix.swapaxes(-1, -2)
    low, high = box(path)
    size = np.minimum(0.78 * np.exp(SCALE * scale), 0.86)[..., None, None, None]
    path = (path - (low + high) / 2) * size / (high - low).max(-1, keepdims=True)
    low, high = box(path)
    shift = 0.5 + SHIFT * draws[..., STYLE : STYLE + 2][:, :, None, None]
    path = path + np.clip(shift, 0.06 - low, 0.94 - high)
    return path, bones.live, 0.024 * np.exp(PEN * pen)


def _ink(path: ndarray, live: ndarray, pen: ndarray, size: int) -> ndarray:
    """Soft pens along paths: `[M, S, P, 2]`, `[M, S]`, `[M]` → uint8 `[M, size, size]`.

    A Gaussian pen is a product of a row and a column, so all its touches are one matrix product.
    """
    step = np.linalg.norm(np.diff(path, axis=-2), axis=-1)
    weight = np.zeros(path.shape[:-1])
    weight[..., :-1] += step / 2
    weight[..., 1:] += step / 2
    weight = weight * live[..., None] + live[..., None] * 1e-3
    width = np.maximum(pen, 0.6 / size)[:, None, None]
    centre = (np.arange(size, dtype=np.float32) + 0.5) / size
    flat = path.reshape(len(path), -1, 2).astype(np.float32)
    bells = np.exp(-0.5 * ((flat[..., None] - centre) / width[..., None].astype(np.float32)) ** 2)
    scale = (weight.reshape(len(path), -1) / (width[:, 0] * (2 * np.pi) ** 0.5)).astype(np.float32)
    ink = np.matmul((bells[:, :, 1] * scale[..., None]).swapaxes(1, 2), bells[:, :, 0])
    ink = np.clip((ink - 0.12) / 0.5, 0, 1)  # a crest is 1: a firm line with a soft edge
    return np.rint(255 * ink).astype(np.uint8)


def _check(classes: int, samples: int, size: int) -> None:
    if classes < 1 or samples < 1:
        raise DataError(f"glyphs: {classes} classes of {samples} examples; at least 1 of each is needed")
    if size < 8:
        raise DataError(f"glyphs: pictures of {size}x{size} are too small to write in; at least 8 is needed")


def glyphs(classes: int = 400, samples_per_class: int = 20, *, size: int = 28, seed: int = 0) -> ClassDataset:
    """Made-up handwritten characters, as many as are wanted: light ink on black.

    Args:
        classes: how many characters; the first ones are the same however many there are.
        samples_per_class: how many hands write each; likewise.
        size: the side of the pictures in pixels.
        seed: another seed, another script.

    Returns:
        `x` uint8 `[classes * samples_per_class, 1, size, size]`; the attribute "hand", since hand `j` wrote
        example `j` of every character; the split "default" of consecutive classes, 60/20/20.

    Raises:
        DataError: no classes, no examples, or pictures too small to write in.

    Example:
        >>> glyphs(classes=30)
        ClassDataset(glyphs: 30 classes, 20 examples each, 1x28x28 torch.uint8)
    """
    _check(classes, samples_per_class, size)
    parts = []
    each = max(1, 1000 // samples_per_class)  # classes at a time: the touches of the pen take memory
    for start in range(0, classes, each):
        chosen = np.arange(start, min(start + each, classes))
        path, live, pen = _paths(chosen, samples_per_class, seed)
        flat = path.reshape(-1, *path.shape[2:])
        parts.append(_ink(flat, np.repeat(live, samples_per_class, 0), pen.reshape(-1), size))
    x = torch.from_numpy(np.concatenate(parts)[:, None])
    a, b = round(0.6 * classes), round(0.8 * classes)
    whole = tuple(range(classes))
    return ClassDataset(
        x=x,
        offsets=torch.arange(classes + 1) * samples_per_class,
        names=tuple(f"glyph-{c:04d}" for c in whole),
        attributes={"hand": torch.arange(samples_per_class).repeat(classes)},
        splits={"default": (whole[:a], whole[a:b], whole[b:])},
        name="glyphs",
        note=f"ink 255 on 0, drawn at {size}x{size}, seed {seed}",
    )


def strokes(class_index: int, example_index: int, seed: int = 0) -> list[ndarray]:
    """The pen path of one example, for drawing along.

    Returns:
        One float array `[n, 2]` a stroke, in the order of writing: x to the right and y downwards, in 0..1
        of the picture.

    Raises:
        DataError: an index below 0.

    Example:
        >>> [len(path) for path in strokes(0, 0)]
        [32, 32, 32]
    """
    if class_index < 0 or example_index < 0:
        raise DataError(f"glyphs: no class {class_index}, example {example_index}; both count from 0")
    path, live, _ = _paths(np.array([class_index]), example_index + 1, seed)
    return list(path[0, example_index][live[0]])
