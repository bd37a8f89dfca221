"""Tasks with a few frequent classes and a tail of rare ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from quickstudy.errors import TaskError
from quickstudy.tasks.chance import uniforms
from quickstudy.tasks.task import Task, TaskSource

STREAM = 12


def tail(most: int, way: int) -> list[int]:
    """Shots that fall from `most` to 1 by a constant factor, rounded (Cui et al. 2019, arXiv 1901.05555).

    >>> tail(10, 5)
    [10, 6, 3, 2, 1]
    """
    return [max(1, round(most ** (1 - rank / max(1, way - 1)))) for rank in range(way)]


@dataclass(frozen=True, eq=False)
class LongTailed:
    """The same tasks, their support sets thinned to a long tail: K shots of one class, down to one shot.

    Which class is frequent is drawn anew for each task. Queries stay as many of each class.

    Args:
        source: K-shot tasks, all of one size.
        seed: of which classes are frequent.

    Raises:
        TaskError: tasks without labels, or of different sizes.

    Example:
        >>> from quickstudy.data.dataset import ClassDataset
        >>> from quickstudy.tasks.sampler import ClassTasks
        >>> data = ClassDataset.from_arrays(np.zeros((60, 8, 8), np.uint8), np.arange(60) % 6)
        >>> sorted(LongTailed(ClassTasks(data, way=3, shot=9, query=1)).task(0).support.y.bincount().tolist())
        [1, 3, 9]
    """

    source: TaskSource
    seed: int = 0

    @property
    def data(self) -> object:
        """The data set that the tasks come from."""
        return getattr(self.source, "data", None)

    def batch(self, indices: np.ndarray) -> Task:
        """The source's tasks, what is beyond a class's shots masked as padding."""
        batch, indices = self.source.batch(indices), np.asarray(indices)
        if batch.support.way is None or batch.padded:
            raise TaskError("only tasks of one size, with class labels, can be thinned to a long tail")
        y, way = batch.support.y, batch.support.way  # [T, n]
        shots = torch.tensor(tail(y.shape[1] // way, way), device=y.device)
        rank = torch.from_numpy(np.argsort(uniforms(self.seed, STREAM, indices, way), axis=-1)).to(y.device)
        same = y[:, :, None] == y[:, None, :]  # [T, n, n]
        before = same.tril(-1).sum(-1)
        mask = before < shots[rank].gather(1, y)
        return replace(batch, support=replace(batch.support, mask=mask))

    def task(self, index: int) -> Task:
        """The task with this number."""
        return next(self.batch(np.array([index])).unbatch())

    def describe(self) -> dict[str, object]:
        """The tasks, and that they have a long tail."""
        return {**self.source.describe(), "long_tailed": True}
