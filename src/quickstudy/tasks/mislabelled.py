"""Tasks in whose support set some labels are wrong: symmetric label noise."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from quickstudy.errors import TaskError
from quickstudy.tasks.chance import uniforms
from quickstudy.tasks.task import Task, TaskSource

STREAM = 11


@dataclass(frozen=True, eq=False)
class Mislabelled:
    """The same tasks, a share of each class's support labels replaced by another class's, any alike likely.

    Args:
        source: tasks with class labels, all of one size.
        share: of each class's examples, rounded down: with 5 shots 0.2 is one. Every class keeps a right one.
        seed: of what is wrong.

    Raises:
        TaskError: a share that is not from 0 to below 1, or tasks without labels.

    Example:
        >>> from quickstudy.data.dataset import ClassDataset
        >>> from quickstudy.tasks.sampler import ClassTasks
        >>> data = ClassDataset.from_arrays(np.zeros((60, 8, 8), np.uint8), np.arange(60) % 6)
        >>> tasks = ClassTasks(data, way=3, shot=5)
        >>> wrong = Mislabelled(tasks).task(0).support.y != tasks.task(0).support.y
        >>> int(wrong.sum())
        3
    """

    source: TaskSource
    share: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise TaskError(f"share must be at least 0 and below 1, not {self.share}")

    @property
    def data(self) -> object:
        """The data set that the tasks come from."""
        return getattr(self.source, "data", None)

    def batch(self, indices: np.ndarray) -> Task:
        """The source's tasks with wrong labels in their support sets; queries keep theirs."""
        batch, indices = self.source.batch(indices), np.asarray(indices)
        if batch.support.way is None or batch.padded:
            raise TaskError("only tasks of one size, with class labels, can be mislabelled")
        y, way = batch.support.y, batch.support.way  # [T, n]
        n = y.shape[1]
        order, other = torch.from_numpy(uniforms(self.seed, STREAM, indices, 2 * n)).split([n, n], 1)
        same = y[:, :, None] == y[:, None, :]  # [T, n, n]
        before = (same & (order[:, None, :] < order[:, :, None])).sum(-1)
        wrong = before < (self.share * same.sum(-1) + 1e-9).floor()
        step = 1 + (other * (way - 1)).long()  # to any other class
        y = torch.where(wrong, (y + step) % way, y)
        return replace(batch, support=replace(batch.support, y=y))

    def task(self, index: int) -> Task:
        """The task with this number."""
        return next(self.batch(np.array([index])).unbatch())

    def describe(self) -> dict[str, object]:
        """The tasks, and the share of wrong labels."""
        return {**self.source.describe(), "mislabelled": self.share}
