"""Image completion (Garnelo et al. 2018, arXiv 1807.01613, section 4.2): a picture is a function from places
to brightness, seen at a few pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import TaskError
from quickstudy.tasks.chance import uniforms
from quickstudy.tasks.sizes import Range
from quickstudy.tasks.task import Query, Support, Task, as_float


@dataclass(frozen=True, eq=False)
class Completion:
    """Each task is one picture: from the support set's pixels tell the query's; task i is a pure function of
    (data, seed, i).

    Args:
        data: the pictures; their classes play no part, but that of a split the test classes are unseen.
        shot: pixels shown.
        query: pixels to tell, others than those shown; None is every pixel, row by row, those shown too.
        seed: which of the endless sequences of tasks.

    Raises:
        TaskError: no pictures, or more pixels than they have.

    >>> data = ClassDataset.from_arrays(np.zeros((6, 1, 8, 8), np.uint8), np.arange(6) % 2)
    >>> task = Completion(data, shot=10).task(0)
    >>> task.support.x.shape, task.query.y.shape
    (torch.Size([10, 2]), torch.Size([64, 1]))
    """

    data: ClassDataset
    shot: int = 100
    query: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        name, shape = self.data.name, self.data.image_shape
        if len(shape) != 3 or not len(self.data):
            raise TaskError(f"{name} has no pictures here to complete")
        asked = 0
        for word in ("shot", "query"):
            if getattr(self, word) is not None:
                found = Range.of(word, getattr(self, word), 1)
                if found.low < found.high:
                    raise TaskError(f"{word} must be one number of pixels, not a range")
                asked += found.low
        if asked > shape[1] * shape[2]:
            raise TaskError(f"{name}: pictures of {shape[1]}×{shape[2]} have fewer than {asked} pixels")

    def batch(self, indices: np.ndarray) -> Task:
        """Places `[T, shot, 2]` (row, column, each from −1 to 1) → values `[T, shot, C]` from 0 to 1; query
        likewise."""
        indices, (_, height, width) = np.asarray(indices), self.data.image_shape
        which = (uniforms(self.seed, 0, indices, 1)[:, 0] * len(self.data.x)).astype(np.int64)  # [T]
        order = torch.from_numpy(np.argsort(uniforms(self.seed, 1, indices, height * width), axis=-1))
        y = as_float(self.data.x[torch.from_numpy(which)]).flatten(2).mT  # [T, pixels, C]
        x = places(height, width)  # [pixels, 2]

        def at(pixels: Tensor) -> tuple[Tensor, Tensor]:
            """Places and values of pixels `[T, n]`."""
            return x[pixels], y.gather(1, pixels[..., None].expand(-1, -1, y.shape[-1]))

        if self.query is None:
            asked = torch.arange(height * width).expand(len(order), -1)
        else:
            asked = order[:, self.shot : self.shot + self.query]
        return Task(Support(*at(order[:, : self.shot])), Query(*at(asked)))

    def task(self, index: int) -> Task:
        """The task with this number."""
        return next(self.batch(np.array([index])).unbatch())

    def describe(self) -> dict[str, Any]:
        """Data set, shot, query and seed."""
        query = self.query or math.prod(self.data.image_shape[1:])
        return {"data": self.data.name, "shot": self.shot, "query": query, "seed": self.seed}


def places(height: int, width: int) -> Tensor:
    """The places of a picture's pixels, row by row: (row, column), each from −1 to 1, `[height · width, 2]`.

    >>> places(2, 3)[4]
    tensor([1., 0.])
    """
    return torch.cartesian_prod(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width))
