"""Which rows of a data set make up a batch of tasks, and their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from quickstudy.data.arrays import numbers
from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import TaskError
from quickstudy.tasks.task import Query, Support, Task, as_float

Environment = tuple[str, Sequence[int]]


class Draw(NamedTuple):
    """The rows of the data set that make up a batch of tasks; -1 where a row is padding."""

    support: np.ndarray  # [T, N*K]
    support_y: np.ndarray  # [T, N*K]
    query: np.ndarray  # [T, N*Q]
    query_y: np.ndarray  # [T, N*Q]
    classes: np.ndarray  # [T, N]
    unlabelled: np.ndarray  # [T, U]


def plain(environment: Environment | None) -> Environment | None:
    """An environment whose values are Python's own numbers, from a range, an array or a tensor.

    >>> plain(("drawer", np.arange(3)))
    ('drawer', (0, 1, 2))
    """
    if environment is None:
        return None
    attribute, values = environment
    return attribute, tuple(numbers(values, f"values of {attribute!r}").tolist())


class Rows(NamedTuple):
    """Rows of a data set grouped by class: class c owns `rows[offsets[c]:offsets[c + 1]]`."""

    rows: np.ndarray
    offsets: np.ndarray

    @staticmethod
    def of(data: ClassDataset, environment: Environment | None = None, *, others: bool = False) -> Rows:
        """All rows, or those where an attribute has one of some values; or with `others`, all but those.

        Raises:
            TaskError: the data have no such attribute; the message names those there are.
        """
        if environment is None:
            return Rows(np.arange(len(data.x)), data.offsets.numpy())
        attribute, values = environment
        if attribute not in data.attributes:
            known = ", ".join(data.attributes) or "none"
            raise TaskError(f"{data.name} has no attribute {attribute!r} (it has: {known})")
        keep = torch.isin(data.attributes[attribute], numbers(values, f"values of {attribute!r}")).numpy()
        keep = ~keep if others else keep
        kept_before = np.concatenate([[0], keep.cumsum()])  # of each row
        return Rows(np.flatnonzero(keep), kept_before[data.offsets.numpy()])

    def parted(self, share: float) -> tuple[Rows, Rows]:
        """This share of each class's rows, rounded down, the first ones; and the others."""
        place = np.arange(len(self.rows)) - np.repeat(self.offsets[:-1], self.counts)  # within its class
        keep = place + 1 <= np.repeat(self.counts * share + 1e-9, self.counts)
        kept_before = np.concatenate([[0], keep.cumsum()])[self.offsets]
        return Rows(self.rows[keep], kept_before), Rows(self.rows[~keep], self.offsets - kept_before)

    @property
    def counts(self) -> np.ndarray:
        """Rows of each class."""
        return np.diff(self.offsets)

    def take(self, classes: np.ndarray, picks: np.ndarray) -> np.ndarray:
        """Row numbers for picks `[T, N, k]` within classes `[T, N]`."""
        return self.rows[self.offsets[classes][..., None] + picks]


def gather(x: Tensor, draw: Draw, way: int) -> Task:
    """The pixels of drawn rows, as float32; the only place where a task touches the data."""

    def rows(index: np.ndarray) -> tuple[Tensor, Tensor | None]:
        flat = torch.from_numpy(np.ascontiguousarray(index)).reshape(-1)
        mask = None
        if index.size and index.min() < 0:
            mask = torch.from_numpy(index >= 0)
            flat = flat.clamp(min=0)
        return as_float(x.index_select(0, flat)).reshape(*index.shape, *x.shape[1:]), mask

    support, support_mask = rows(draw.support)
    query, query_mask = rows(draw.query)
    unlabelled = rows(draw.unlabelled)[0] if draw.unlabelled.size else None
    y = torch.from_numpy
    return Task(
        Support(support, y(draw.support_y), way, support_mask, unlabelled),
        Query(query, y(draw.query_y), query_mask),
        y(np.ascontiguousarray(draw.classes)),
    )
