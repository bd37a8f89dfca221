"""Evaluation sets: tasks saved as row numbers, without pixels, and read back over the same data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import DataError, TaskError
from quickstudy.files import write_bytes
from quickstudy.tasks.rows import Draw, gather
from quickstudy.tasks.task import Task

OWN = ("fingerprint", "way_max")  # what is kept beside the description


def save_draw(path: Path, draw: Draw, data: ClassDataset, way: int, about: Mapping[str, Any]) -> None:
    """Write drawn tasks to a safetensors file that `FrozenTasks` reads.

    Args:
        way: the most classes of a task.
        about: what `describe` answers, as JSON.

    Raises:
        RunError: the file cannot be written.
    """
    meta = {**about, "fingerprint": data.fingerprint(), "way_max": way}
    arrays = {k: np.ascontiguousarray(v) for k, v in draw._asdict().items()}
    write_bytes(path, save(arrays, {"quickstudy": json.dumps(meta)}))


@dataclass(frozen=True, eq=False)
class FrozenTasks:
    """An evaluation set written by `ClassTasks.save`, read back over the same data.

    Raises:
        DataError: at first use: not such a file, or another data set than the one it was drawn from.

    Example:
        >>> FrozenTasks(test, "tasks.safetensors").task(0)  # doctest: +SKIP
    """

    data: ClassDataset
    path: str | Path

    @cached_property
    def _loaded(self) -> tuple[dict[str, Any], Draw]:
        try:
            with safe_open(str(self.path), "numpy") as file:
                meta = json.loads(file.metadata()["quickstudy"])
                draw = Draw(*(file.get_tensor(k) for k in Draw._fields))
            fingerprint, way = (meta[k] for k in OWN)
        except Exception as error:
            raise DataError(f"{self.path}: not a saved set of tasks ({error!r})") from error
        if fingerprint != self.data.fingerprint():
            raise DataError(f"{self.path}: drawn from other data than this {self.data.name}")
        rows, classes = len(self.data.x), len(self.data)
        for name, most in zip(Draw._fields, (rows, way, rows, way, classes, rows), strict=True):
            part = getattr(draw, name)
            if len(part) != len(draw.support) or (part < -1).any() or (part >= most).any():
                raise DataError(f"{self.path}: damaged, its {name} goes beyond the data; save it again")
        return meta, draw

    def __len__(self) -> int:
        return len(self._loaded[1].support)

    def batch(self, indices: np.ndarray) -> Task:
        """The saved tasks with these numbers `[T]`.

        Raises:
            TaskError: there are fewer.
        """
        meta, draw = self._loaded
        indices = np.asarray(indices, dtype=np.int64)
        for index in indices[(indices < 0) | (indices >= len(self))]:
            raise TaskError(f"{self.path} holds {len(self)} tasks; task {index} was asked for")
        return gather(self.data.x, Draw(*(part[indices] for part in draw)), meta["way_max"])

    def task(self, index: int) -> Task:
        """The saved task with this number, by itself and without padding."""
        return next(self.batch(np.array([index])).unbatch())

    def describe(self) -> dict[str, Any]:
        """What was saved beside the tasks."""
        return {k: v for k, v in self._loaded[0].items() if k not in OWN}
