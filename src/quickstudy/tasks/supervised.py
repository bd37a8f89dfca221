"""Ordinary supervised batches from the meta-train classes, as tasks with an empty support set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from quickstudy.data.dataset import ClassDataset
from quickstudy.tasks.chance import uniforms
from quickstudy.tasks.task import Query, Support, Task, as_float


@dataclass(frozen=True, eq=False)
class SupervisedBatches:
    """Batch i: `size` examples drawn from all classes, labelled with their class number.

    >>> data = ClassDataset.from_arrays(np.zeros((60, 8, 8), np.uint8), np.arange(60) % 6)
    >>> SupervisedBatches(data, size=16).batch(np.arange(2)).query.x.shape
    torch.Size([2, 16, 1, 8, 8])
    """

    data: ClassDataset
    size: int = 32
    seed: int = 0

    def batch(self, indices: np.ndarray) -> Task:
        """Batches `[T, size, …]`; the labels run over all classes of the data set."""
        u = uniforms(self.seed, 7, np.asarray(indices), self.size)
        rows = torch.from_numpy((u * len(self.data.x)).astype(np.int64))
        x = as_float(self.data.x.index_select(0, rows.reshape(-1)))
        x = x.reshape(*rows.shape, *self.data.image_shape)
        y = torch.bucketize(rows, self.data.offsets[1:], right=True)
        return Task(Support(x[:, :0], y[:, :0], len(self.data)), Query(x, y))

    def describe(self) -> dict[str, object]:
        """Data set, classes, batch size and seed."""
        return {"data": self.data.name, "classes": len(self.data), "batch": self.size, "seed": self.seed}
