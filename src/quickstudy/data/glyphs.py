"""Glyphs: as many made-up handwritten characters as are wanted, drawn in memory.

A class is a character: two to four curved strokes, each hung on an earlier one at some place along it. An
example is that character redrawn by one hand, which slants, rounds, presses and trembles in its own way in
every character it draws; control points, joints and the whole figure move anew each time. What stays is
the order of turns and where the strokes meet, and that is what a learner has to find out.

How hard they are: 5-way 1-shot on unseen classes, 20 examples a class, 15 queries, 300 tasks (100 where a
net is trained in each); percent, half width 1 (2). Every training had 40 s of one core, Conv4 with 32
channels and batch statistics, Adam with a cosine schedule; of pretraining with batches of 32 and of 64 the
better is shown (after 120 s only 32 was tried).

    classes (60 % of them for meta-training)         400    3000
    nearest neighbour of blurred pixels               54      54
    untrained net, nearest centroid                   40      40
    net trained from scratch on the support set       55      55
    pretrained (batches of 32), fine-tuned            77      65
    pretrained, nearest centroid                      83      74
    prototypical network, 20-way 1-shot episodes      83      86
    the last two after 120 s                                  82, 91

With 240 meta-train classes an ordinary classifier learns as good an embedding as episodes do. Episodes are
quicker where classes are many: a classifier has a row of weights to learn for each of the 1800.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy import ndarray

from quickstudy.data.dataset import TOGETHER, ClassDataset
from quickstudy.errors import DataError

STROKES, CONTROLS, POINTS = 4, 5, 32  # strokes at most; control points and points of the path in each
CHARACTER, HAND, MOMENT = range(3)  # the streams of chance
RELATIVES = 4  # classes that share all but one stroke

# Standard deviations of what a hand does; half of the variance is the hand's, half the moment's.
ROTATION, SLANT, ASPECT, SCALE, SHIFT = 0.28, 0.28, 0.15, 0.12, 0.06
JITTER, JOINT, WOBBLE, PEN, ROUND = 0.036, 0.04, 0.004, 0.2, 0.3
STYLE, LOOSE = 7, CONTROLS * 2 + 8 + 1  # numbers of a hand, and of a stroke besides


@dataclass(frozen=True)
class Skeletons:
    """What makes characters: `[C, ...]` arrays, strokes in the order of writing.

    Args:
        controls: the control points of each stroke, from its start: `[C, S, K, 2]`.
        live: whether the character has that stroke, `[C, S]`.
        parent: the earlier stroke it hangs on, `[C, S]`.
        at: where along the parent, and where along itself, 0 to 1: `[C, S, 2]`.
        off: how far it stands off the parent there, mostly nothing, `[C, S, 2]`.
        curved: 0 for corners at the control points, 1 for curves, `[C, S]`.
    """

    controls: ndarray
    live: ndarray
    parent: ndarray
    at: ndarray
    off: ndarray
    curved: ndarray


def _chance(seed: int, stream: int, index: int) -> np.random.Generator:
    """A stream of its own for every (seed, stream, index), whatever else is drawn."""
    key = np.array([seed % 2**64, 4 * index + stream], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def _bases() -> tuple[ndarray, ndarray, ndarray]:
    """What makes a pen path: control points as a polyline `[P, K]`, Catmull-Rom's bulge over it `[P, K]`,
    and two slow waves `[P, 4]`."""
    u = np.linspace(0, CONTROLS - 1, POINTS)
    i = np.minimum(u.astype(int), CONTROLS - 2)
    t = (u - i)[:, None]
    eye = np.eye(CONTROLS)
    ends = np.concatenate([2 * eye[:1] - eye[1:2], eye, 2 * eye[-1:] - eye[-2:-1]])
    a, b, c, d = (ends[i + k] for k in range(4))
    polyline = (1 - t) * b + t * c
    curve = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    turns = np.pi * np.linspace(0, 1, POINTS)[:, None] * np.array([2.0, 3.5])
    waves = np.concatenate([np.sin(turns), np.cos(turns)], -1)
    single = np.float32
    return polyline.astype(single), (curve - polyline).astype(single), waves.astype(single)


CORNERED, BULGE, TREMOR = _bases()


def _skeletons(classes: ndarray, seed: int) -> Skeletons:
    """The characters of these classes; those of a family differ in one stroke."""
    per = CONTROLS + 9
    family = np.stack(
        [_chance(seed, CHARACTER, 2 * (c // RELATIVES)).random(STROKES * per + 1) for c in classes]
    )
    own = np.stack([_chance(seed, CHARACTER, 2 * c + 1).random(STROKES * per + 1) for c in classes])
    count = 2 + (family[:, -1:] > 0.25) + (family[:, -1:] > 0.7)
    differs = np.arange(STROKES) == (own[:, -1:] * count).astype(int)  # [C, S]
    u = np.where(
        differs[..., None], own[:, :-1].reshape(-1, STROKES, per), family[:, :-1].reshape(-1, STROKES, per)
    )
    bend, first, length, lifted, lift, on_parent, on_self, by_start, parent, corners, *turn = np.moveaxis(
        u, -1, 0
    )

    curl = np.array([-1.15, -0.6, 0.0, 0.0, 0.6, 1.15])[(bend * 6).astype(int)]
    turning = np.stack([curl + 1.3 * (v - 0.5) for v in turn], -1)  # radians at each control point
    heading = 2 * np.pi * first[..., None] + np.cumsum(turning, -1)
    moves = (0.13 + 0.14 * length)[..., None, None] * np.stack([np.cos(heading), np.sin(heading)], -1)
    controls = np.concatenate([np.zeros_like(moves[..., :1, :]), np.cumsum(moves, -2)], -2)
    off = np.where(lifted < 0.15, 0.16, 0.0)[..., None]
    places = np.stack([on_parent, np.where(by_start < 0.6, 0.0, on_self)], -1)
    return Skeletons(
        controls=controls.astype(np.float32),
        live=np.arange(STROKES) < count,
        parent=(parent * np.maximum(np.arange(STROKES), 1)).astype(int),
        at=np.floor(places * 5) / 4,
        off=off * np.stack([np.cos(2 * np.pi * lift), np.sin(2 * np.pi * lift)], -1),
        curved=np.where(corners < 0.3, 0.1, 1.0).astype(np.float32),
    )


def _paths(classes: ndarray, samples: int, seed: int) -> tuple[ndarray, ndarray, ndarray]:
    """The pen paths `[C, J, S, P, 2]` in 0..1, which strokes are live `[C, S]`, pen widths `[C, J]`."""
    bones = _skeletons(classes, seed)
    hands = np.stack([_chance(seed, HAND, j).standard_normal(STYLE, np.float32) for j in range(samples)])
    numbers = STYLE + 2 + STROKES * LOOSE
    drawn = np.stack(
        [_chance(seed, MOMENT, c).standard_normal((samples, numbers), np.float32) for c in classes]
    )
    style = np.clip((hands + drawn[..., :STYLE]) * 0.5**0.5, -2.2, 2.2)
    rotation, slant, aspect, scale, pen, roundness, tremble = np.moveaxis(style, -1, 0)  # [C, J] each
    loose = drawn[..., STYLE + 2 :].reshape(*drawn.shape[:2], STROKES, LOOSE)

    jitter = loose[..., : 2 * CONTROLS].reshape(*loose.shape[:3], CONTROLS, 2)
    controls = bones.controls[:, None] + JITTER * jitter
    smooth = np.clip(bones.curved[:, None] + ROUND * roundness[..., None], 0, 1.2)[..., None, None]
    path = CORNERED @ controls
    path += smooth * (BULGE @ controls)  # [C, J, S, P, 2]
    waves = loose[..., 2 * CONTROLS : -1].reshape(*loose.shape[:3], 4, 2)
    path += TREMOR @ (waves * (WOBBLE * np.exp(0.5 * tremble))[..., None, None, None])

    joint = np.repeat(bones.at[:, None], samples, 1)  # [C, J, S, 2]
    joint[..., 0] += JOINT * loose[..., -1]
    joint = np.rint(np.clip(joint, 0, 1) * (POINTS - 1)).astype(int)
    c, j = np.ogrid[: len(classes), :samples]
    for s in range(1, STROKES):  # a parent is always in place before its children
        hook = path[c, j, bones.parent[:, s, None], joint[..., s, 0]] + bones.off[:, None, s]
        path[:, :, s] += (hook - path[c, j, s, joint[..., s, 1]])[:, :, None]

    live = bones.live[:, None, :, None, None]

    def box() -> tuple[ndarray, ndarray]:
        low = np.where(live, path, np.inf).min((-3, -2), keepdims=True)
        high = np.where(live, path, -np.inf).max((-3, -2), keepdims=True)
        return low, high

    cos, sin, lean = np.cos(ROTATION * rotation), np.sin(ROTATION * rotation), SLANT * slant
    wide, tall = np.exp(ASPECT * aspect), np.exp(-ASPECT * aspect)
    # rotation @ slant @ aspect; y grows downwards, so a positive slant leans to the right
    matrix = np.stack([cos * wide, sin * wide, -(cos * lean + sin) * tall, (cos - sin * lean) * tall], -1)
    path = path @ matrix.reshape(*cos.shape, 1, 2, 2)
    low, high = box()
    extent = np.minimum(0.78 * np.exp(SCALE * scale), 0.84)[..., None, None, None]
    path = (path - (low + high) / 2) * (extent / (high - low).max(-1, keepdims=True))
    low, high = box()
    shift = 0.5 + SHIFT * drawn[..., None, None, STYLE : STYLE + 2]
    path += np.clip(shift, 0.08 - low, 0.92 - high)  # the whole character stays in the picture
    return path, bones.live, 0.024 * np.exp(PEN * pen)


def _ink(path: ndarray, live: ndarray, pen: ndarray, size: int) -> ndarray:
    """Soft pens along paths: `[M, S, P, 2]`, `[M, S]`, `[M]` → uint8 `[M, size, size]`.

    A Gaussian pen is a row times a column, so all touches of a picture are one matrix product.
    """
    steps = np.linalg.norm(np.diff(path, axis=-2), axis=-1)
    length = np.pad(steps, ((0, 0), (0, 0), (0, 1))) + np.pad(steps, ((0, 0), (0, 0), (1, 0)))
    width = np.maximum(pen, 0.6 / size).astype(np.float32)[:, None]
    weight = (0.5 * length * live[..., None]).reshape(len(path), -1) / (width * (2 * np.pi) ** 0.5)
    centres = (np.arange(size, dtype=np.float32) + 0.5) / size
    touches = path.reshape(len(path), -1, 2).astype(np.float32)
    far = ((touches[..., None] - centres) / width[..., None, None]) ** 2
    bells = np.exp(-0.5 * np.minimum(far, 40))  # denormal numbers would make the product 40 times slower
    rows = bells[:, :, 1] * weight.astype(np.float32)[..., None]
    ink = np.matmul(rows.swapaxes(1, 2), bells[:, :, 0])  # 1 on the crest of a straight line
    return np.rint(255 * np.clip((ink - 0.12) / 0.5, 0, 1)).astype(np.uint8)


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
        example `j` of every character; the split "default" of consecutive classes, about 60/20/20. From 20
        classes on no split parts a family, whose members share all but one stroke.

    Raises:
        DataError: no classes, no examples, or pictures too small to write in.

    Example:
        >>> glyphs(classes=30)
        ClassDataset(glyphs: 30 classes, 20 examples each, 1x28x28 torch.uint8)
    """
    _check(classes, samples_per_class, size)
    parts = []
    each = max(1, 200 // samples_per_class)  # classes at a time, so that they fit in the processor's cache
    for start in range(0, classes, each):
        chosen = np.arange(start, min(start + each, classes))
        path, live, pen = _paths(chosen, samples_per_class, seed)
        flat = path.reshape(-1, *path.shape[2:])
        parts.append(_ink(flat, np.repeat(live, samples_per_class, 0), pen.reshape(-1), size))
    x = torch.from_numpy(np.concatenate(parts)[:, None])
    family = RELATIVES if classes >= 5 * RELATIVES else 1  # a relative in meta-train is not quite unseen
    a, b = (fifths * classes // 5 // family * family for fifths in (3, 4))
    whole = tuple(range(classes))
    return ClassDataset(
        x=x,
        offsets=torch.arange(classes + 1) * samples_per_class,
        names=tuple(f"glyph-{c:04d}" for c in whole),
        attributes={"hand": torch.arange(samples_per_class).repeat(classes)},
        class_attributes={TOGETHER: tuple(f"{c // family:04d}" for c in whole)},
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
