"""Augmentation: pictures slightly turned, sheared, scaled, shifted, bent, drawn with another pen.

Of hand-drawn things it is known what leaves the class as it is: small affine maps (Koch, Zemel, Salakhutdinov
2015, Siamese neural networks for one-shot image recognition), smooth bending (Simard, Steinkraus, Platt 2003,
Best practices for convolutional neural networks) and the width of the pen. Each picture is changed by itself,
by chance that is a function of (seed, task, place in the task).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.errors import TaskError, unknown
from quickstudy.tasks.chance import uniforms
from quickstudy.tasks.task import Task, TaskSource

POINTS = 4
"""Bending moves so many by so many points of a picture; what is between them follows smoothly."""
DRAWN = 8 + 2 * POINTS**2
"""Uniform numbers that one picture's distortion takes."""
STREAMS = {"support.x": 8, "query.x": 9, "support.unlabelled": 10}
"""The streams of chance of a task's parts that hold pictures."""
AugmentName = Literal["none", "affine", "drawing"]


@dataclass(frozen=True)
class Distortion:
    """How far pictures are distorted: each amount is the largest, either way, uniformly drawn.

    Args:
        turn: degrees.
        shear: degrees.
        scale: 0.2 makes a picture up to 1.2 times as wide or as narrow, and by itself as high or as low.
        shift: share of the width, and of the height.
        flip: the chance of being mirrored, left to right.
        bend: how far points of a coarse grid move, as a share of the width.
        pen: 1 makes lines up to a pixel wider or thinner on either side; 0.5 half of that.
    """

    turn: float = 0.0
    shear: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    flip: float = 0.0
    bend: float = 0.0
    pen: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            most = {"turn": 180, "shear": 80, "scale": 10}.get(field.name, 1)
            if not 0 <= value <= most:
                raise TaskError(f"{field.name} must be from 0 to {most}, not {value}")


AUGMENTATIONS: dict[str, Distortion] = {
    "affine": Distortion(turn=15, shear=10, scale=0.2, shift=0.1),
    "drawing": Distortion(turn=15, shear=10, scale=0.2, shift=0.1, flip=0.5, bend=0.06, pen=0.5),
}
"""By name: small affine maps for any pictures; for drawings mirrored, bent, and with another pen too."""


class _Chance(NamedTuple):
    """A picture's chance, `[n]` each, from −1 to 1, the flip's from 0 to 1; the bend's is `[n, 2, P, P]`."""

    turn: Tensor
    shear: Tensor
    wide: Tensor
    high: Tensor
    right: Tensor
    down: Tensor
    pen: Tensor
    flip: Tensor
    bend: Tensor

    @staticmethod
    def of(u: Tensor) -> _Chance:
        plain, bend = u.split([8, u.shape[1] - 8], 1)
        *both, flip = plain.unbind(1)
        return _Chance._make([*(2 * v - 1 for v in both), flip, 2 * bend.reshape(-1, 2, POINTS, POINTS) - 1])


def distorted(x: Tensor, u: Tensor, how: Distortion) -> Tensor:
    """Pictures `[n, C, H, W]`, each distorted by its own uniform numbers `[n, DRAWN]`.

    What comes in from beyond the edges is paper, the median of a picture's border.

    >>> x = torch.rand(2, 1, 28, 28)
    >>> torch.equal(distorted(x, torch.rand(2, DRAWN), Distortion()), x)
    True
    """
    if how == Distortion() or not len(x):
        return x
    chance = _Chance.of(u.to(x))
    border = torch.cat([x[..., 0, :], x[..., -1, :], x[..., 0], x[..., -1]], -1)  # [n, C, 2(H + W)]
    paper = border.median(-1).values[..., None, None]
    ink = x - paper
    if how.pen:
        ink = penned(ink, how.pen * chance.pen)
    return paper + F.grid_sample(ink, places(x.shape, chance, how), align_corners=False)


def penned(ink: Tensor, pen: Tensor) -> Tensor:
    """Drawings with wider lines where pen is above 0, thinner ones where it is below, `[n]`."""
    side = torch.where(ink.mean((1, 2, 3)) < 0, -1.0, 1.0)[
        :, None, None, None
    ]  # darker or lighter than paper
    ink = side * ink
    pen = pen[:, None, None, None]
    wider, thinner = F.max_pool2d(ink, 3, 1, 1), -F.max_pool2d(-ink, 3, 1, 1)
    return side * (ink + pen.clamp(min=0) * (wider - ink) + pen.clamp(max=0) * (ink - thinner))


def places(shape: torch.Size, chance: _Chance, how: Distortion) -> Tensor:
    """Where each pixel of the pictures `[n, C, H, W]` comes from: `[n, H, W, 2]`, from −1 to 1."""
    turn, shear = (math.radians(a) * v for a, v in ((how.turn, chance.turn), (how.shear, chance.shear)))
    wide, high = (math.log1p(how.scale) * v for v in (chance.wide, chance.high))
    mirrored = torch.where(chance.flip < how.flip, -1.0, 1.0).to(turn)
    cos, sin, tan = turn.cos(), turn.sin(), shear.tan()
    a, d = wide.exp() * mirrored, high.exp()
    rows = [
        torch.stack([a * cos, d * (tan * cos - sin), 2 * how.shift * chance.right], -1),
        torch.stack([a * sin, d * (tan * sin + cos), 2 * how.shift * chance.down], -1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), list(shape), align_corners=False)
    if not how.bend:
        return grid
    bend = F.interpolate(2 * how.bend * chance.bend, shape[-2:], mode="bicubic", align_corners=True)
    return grid + bend.permute(0, 2, 3, 1)


@dataclass(frozen=True, eq=False)
class Augmented:
    """Tasks whose pictures are distorted: for meta-training, where classes have few examples.

    Args:
        source: tasks with pictures.
        how: a name of `AUGMENTATIONS`, or how far.
        seed: of the distortions; the same task is distorted in the same way.

    Raises:
        TaskError: the tasks hold no pictures.
        UserError: no augmentation has that name.

    Example:
        >>> from quickstudy.data.dataset import ClassDataset
        >>> from quickstudy.tasks.sampler import ClassTasks
        >>> data = ClassDataset.from_arrays(np.zeros((60, 28, 28), np.uint8), np.arange(60) % 6)
        >>> Augmented(ClassTasks(data, way=5, shot=1), "drawing").batch(np.arange(2)).support.x.shape
        torch.Size([2, 5, 1, 28, 28])
    """

    source: TaskSource
    how: str | Distortion = "affine"
    seed: int = 0

    @property
    def data(self) -> object:
        """The data set that the tasks come from."""
        return getattr(self.source, "data", None)

    @property
    def distortion(self) -> Distortion:
        """How far pictures are distorted."""
        if isinstance(self.how, Distortion):
            return self.how
        if self.how not in AUGMENTATIONS:
            raise unknown("augmentation", self.how, AUGMENTATIONS)
        return AUGMENTATIONS[self.how]

    def __post_init__(self) -> None:
        _ = self.distortion  # there is one

    def batch(self, indices: np.ndarray) -> Task:
        """The source's tasks, every picture distorted."""
        batch = self.source.batch(indices)
        found = dict(batch.tensors())
        for name in STREAMS.keys() & found.keys():
            found[name] = self._distorted(found[name], np.asarray(indices), STREAMS[name])
        return batch.with_tensors(found)

    def _distorted(self, x: Tensor, indices: np.ndarray, stream: int) -> Tensor:
        if x.ndim != 5:
            raise TaskError(
                f"only pictures [C, H, W] can be augmented, not examples of shape {tuple(x.shape[2:])}"
            )
        u = uniforms(self.seed, stream, indices, x.shape[1] * DRAWN).reshape(-1, DRAWN)
        return distorted(x.flatten(0, 1), torch.from_numpy(u), self.distortion).reshape(x.shape)

    def describe(self) -> dict[str, object]:
        """The tasks, and how far their pictures are distorted."""
        how = self.how if isinstance(self.how, str) else asdict(self.how)
        return {**self.source.describe(), "augment": how}
