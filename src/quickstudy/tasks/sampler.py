"""Tasks drawn from a `ClassDataset`: N classes, K support and Q query examples of each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import DataError, TaskError
from quickstudy.tasks.chance import choose, uniforms
from quickstudy.tasks.task import Query, Support, Task, as_float

Count = int | tuple[int, int]
Environment = tuple[str, Sequence[int]]


def _range(value: Count) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


class Draw(NamedTuple):
    """The rows of the data set that make up a batch of tasks; -1 where a row is padding."""

    support: np.ndarray  # [T, N*K]
    support_y: np.ndarray  # [T, N*K]
    query: np.ndarray  # [T, N*Q]
    query_y: np.ndarray  # [T, N*Q]
    classes: np.ndarray  # [T, N]
    unlabelled: np.ndarray  # [T, U]


class Rows(NamedTuple):
    """Rows of a data set grouped by class: class c owns `rows[offsets[c]:offsets[c + 1]]`."""

    rows: np.ndarray
    offsets: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        return np.diff(self.offsets)

    def take(self, classes: np.ndarray, picks: np.ndarray) -> np.ndarray:
        """Row numbers for picks `[T, N, k]` within classes `[T, N]`."""
        return self.rows[self.offsets[classes][..., None] + picks]


@dataclass(frozen=True, eq=False)
class ClassTasks:
    """N-way K-shot tasks over the classes of a data set; task i is a pure function of (data, seed, i).

    Args:
        data: the classes to draw from.
        way: classes a task, or (lowest, highest) drawn per task.
        shot: support examples a class, or (lowest, highest) drawn per task.
        query: query examples a class, or (lowest, highest); None is min(15, what is left after the shots).
        seed: which of the endless sequences of tasks.
        ragged: draw the shots for each class separately instead of one number for the task.
        unlabelled: further examples of each class, given without labels.
        distractors: further classes that appear only among the unlabelled examples.
        frequency: draw classes in proportion to their number of examples instead of uniformly.
        support_from: (attribute, values): take support examples only where the attribute has such a value.
        query_from: the same for the query set: another environment than the support set's.

    Raises:
        TaskError: more ways, shots or queries than there are; it names the class and the count.

    Example:
        >>> from quickstudy.data.dataset import ClassDataset
        >>> data = ClassDataset.from_arrays(np.zeros((60, 8, 8), np.uint8), np.arange(60) % 6)
        >>> ClassTasks(data, way=5, shot=1).batch(np.arange(4)).query.x.shape
        torch.Size([4, 45, 1, 8, 8])
    """

    data: ClassDataset
    way: Count = 5
    shot: Count = 1
    query: Count | None = None
    seed: int = 0
    ragged: bool = False
    unlabelled: int = 0
    distractors: int = 0
    frequency: bool = False
    support_from: Environment | None = None
    query_from: Environment | None = None
    _tables: tuple[Rows, Rows] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not len(self.data):
            raise TaskError(f"{self.data.name} has no classes here")
        separate = self.support_from is not None or self.query_from is not None
        support = self._rows(self.support_from)
        object.__setattr__(self, "_tables", (support, self._rows(self.query_from) if separate else support))
        counts = support.counts
        if self.query is None:
            left = int(self._tables[1].counts.min()) if separate else self._left(int(counts.min()))
            object.__setattr__(self, "query", max(1, min(15, left)))
        self._check(separate)

    def _left(self, fewest: int) -> int:
        return fewest - _range(self.shot)[1] - self.unlabelled

    def _rows(self, environment: Environment | None) -> Rows:
        if environment is None:
            return Rows(np.arange(len(self.data.x)), self.data.offsets.numpy())
        attribute, values = environment
        if attribute not in self.data.attributes:
            known = ", ".join(self.data.attributes) or "none"
            raise TaskError(f"{self.data.name} has no attribute {attribute!r} (it has: {known})")
        keep = torch.isin(self.data.attributes[attribute], torch.as_tensor(list(values))).numpy()
        kept_before = np.concatenate([[0], keep.cumsum()])  # of each row
        return Rows(np.flatnonzero(keep), kept_before[self.data.offsets.numpy()])

    def _check(self, separate: bool) -> None:
        name, classes = self.data.name, len(self.data)
        for word, value, least in (
            ("way", self.way, 2),
            ("shot", self.shot, 1),
            ("query", self.query, 1),
            ("unlabelled", self.unlabelled, 0),
            ("distractors", self.distractors, 0),
        ):
            low, high = _range(value)  # type: ignore[arg-type]
            if low < least:
                raise TaskError(f"{word} must be at least {least}, not {low}")
            if high < low:
                raise TaskError(f"{word} runs from {low} to {high}: the lower number goes first")
        ways_low, ways = _range(self.way)
        if ways_low < ways and self.unlabelled:
            raise TaskError("unlabelled examples need one number of ways, not a range")
        if ways + self.distractors > classes:
            extra = f" and {self.distractors} distractor classes" if self.distractors else ""
            raise TaskError(f"{name} has {classes} classes here: {ways} ways{extra} are more than there are")
        shot, query = _range(self.shot)[1], _range(self.query)[1]  # type: ignore[arg-type]
        support, queries = self._tables
        wants = [(support, shot + self.unlabelled + (0 if separate else query))]
        wants += [(queries, query)] if separate else []
        for table, need in wants:
            worst = int(table.counts.argmin())
            if table.counts[worst] < need:
                what = f"{shot} shots + {query} queries"
                what += f" + {self.unlabelled} unlabelled" if self.unlabelled else ""
                raise TaskError(
                    f"{name}: class {self.data.names[worst]!r} has {table.counts[worst]} examples, "
                    f"too few for {what}"
                )
        if separate:
            overlap = np.intersect1d(support.rows, queries.rows)
            if len(overlap):
                raise TaskError(
                    f"{name}: the environments of support and query share {len(overlap)} examples; "
                    "choose values that exclude each other"
                )

    @cached_property
    def _log_weights(self) -> np.ndarray:
        return np.log(np.maximum(self.data.counts.numpy(), 1e-300))

    def _classes(self, indices: np.ndarray, n: int) -> np.ndarray:
        if not self.frequency:
            return choose(uniforms(self.seed, 0, indices, 2 * n), len(self.data), n)
        # Gumbel top-k: without replacement, each draw in proportion to the class's size.
        u = uniforms(self.seed, 0, indices, len(self.data))
        keys = self._log_weights - np.log(-np.log(u + 1e-300))
        return np.argsort(-keys, axis=-1)[:, :n]

    def draw(self, indices: np.ndarray) -> Draw:
        """Which rows make up these tasks, and their labels; no pixel is touched."""
        t = len(indices)
        (ways_low, ways), (low, shot) = _range(self.way), _range(self.shot)
        query_low, query = _range(self.query)  # type: ignore[arg-type]
        n = ways + self.distractors
        classes = self._classes(indices, n)  # [T, N + D]
        support_rows, query_rows = self._tables
        u = self.unlabelled
        if support_rows is query_rows:
            k = shot + query + u
            chance = uniforms(self.seed, 1, indices, n * 2 * k).reshape(t, n, 2 * k)
            picks = choose(chance, support_rows.counts[classes], k)
            rows = support_rows.take(classes, picks)  # [T, N + D, k]
            support, queries, spare = np.split(rows, [shot, shot + query], axis=-1)
        else:
            k = shot + u
            chance = uniforms(self.seed, 1, indices, n * 2 * k).reshape(t, n, 2 * k)
            rows = support_rows.take(classes, choose(chance, support_rows.counts[classes], k))
            support, spare = np.split(rows, [shot], axis=-1)
            chance = uniforms(self.seed, 2, indices, n * 2 * query).reshape(t, n, 2 * query)
            queries = query_rows.take(classes, choose(chance, query_rows.counts[classes], query))
        support, queries = support[:, :ways].copy(), queries[:, :ways].copy()

        # Ranged way, shot and query draw the largest and blank out what is too much.
        sizes = uniforms(self.seed, 3, indices, 3 + ways)
        if ways_low < ways:
            active = ways_low + (sizes[:, 0] * (ways - ways_low + 1)).astype(np.int64)
            gone = np.arange(ways) >= active[:, None]
            support[gone], queries[gone] = -1, -1
        if low < shot:
            lots = sizes[:, 3:] if self.ragged else np.repeat(sizes[:, 1:2], ways, 1)
            shots = low + (lots * (shot - low + 1)).astype(np.int64)
            support[np.arange(shot) >= shots[..., None]] = -1
        if query_low < query:
            asked = query_low + (sizes[:, 2] * (query - query_low + 1)).astype(np.int64)
            queries[np.broadcast_to(np.arange(query) >= asked[:, None, None], queries.shape)] = -1

        labels = np.arange(ways)
        return Draw(
            *self._shuffled(4, indices, support, np.repeat(labels, shot)),
            *self._shuffled(5, indices, queries, np.repeat(labels, query)),
            classes[:, :ways],
            self._shuffled(6, indices, spare, np.zeros(n * u, np.int64))[0],
        )

    def _shuffled(
        self, stream: int, indices: np.ndarray, rows: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows `[T, N, k]` flattened in a random order, so that no position tells the class."""
        flat = rows.reshape(len(rows), -1)
        order = np.argsort(uniforms(self.seed, stream, indices, flat.shape[1]), axis=-1)
        return np.take_along_axis(flat, order, -1), labels[order]

    def batch(self, indices: np.ndarray) -> Task:
        """The tasks with these indices `[T]`: pictures `[T, N*K, C, H, W]`, float32 in 0 to 1."""
        return gather(self.data.x, self.draw(np.asarray(indices)), _range(self.way)[1])

    def task(self, index: int) -> Task:
        """The task with this number, by itself and without padding."""
        return next(self.batch(np.array([index])).unbatch())

    def describe(self) -> dict[str, Any]:
        """Data set, way, shot, query and seed, as JSON."""
        return {
            "data": self.data.name,
            "classes": len(self.data),
            "way": self.way,
            "shot": self.shot,
            "query": self.query,
            "seed": self.seed,
        }

    def save(self, path: str | Path, n_tasks: int) -> None:
        """Write the first `n_tasks` tasks (row numbers, no pixels) to a safetensors file."""
        draw = self.draw(np.arange(n_tasks))
        meta = {**self.describe(), "fingerprint": self.data.fingerprint(), "way_max": _range(self.way)[1]}
        tensors = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in draw._asdict().items()}
        whole = Path(f"{path}.tmp")  # renamed when it is: a reader never sees half a file
        save_file(tensors, str(whole), {"quickstudy": json.dumps(meta)})
        whole.replace(path)


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


@dataclass(frozen=True, eq=False)
class FrozenTasks:
    """An evaluation set written by `ClassTasks.save`, read back over the same data.

    Raises:
        DataError: not such a file, or another data set than the one it was drawn from.
    """

    data: ClassDataset
    path: str | Path

    @cached_property
    def _loaded(self) -> tuple[dict[str, Any], Draw]:
        try:
            with safe_open(str(self.path), "numpy") as file:
                meta = json.loads(file.metadata()["quickstudy"])
                draw = Draw(*(file.get_tensor(k) for k in Draw._fields))
        except Exception as error:
            raise DataError(f"{self.path}: not a saved set of tasks ({error})") from error
        if meta["fingerprint"] != self.data.fingerprint():
            raise DataError(f"{self.path}: drawn from other data than this {self.data.name}")
        return meta, draw

    def __len__(self) -> int:
        return len(self._loaded[1].support)

    def batch(self, indices: np.ndarray) -> Task:
        """The saved tasks with these numbers."""
        meta, draw = self._loaded
        if len(indices) and max(indices) >= len(self):
            raise TaskError(f"{self.path} holds {len(self)} tasks; task {max(indices)} was asked for")
        return gather(self.data.x, Draw(*(part[indices] for part in draw)), meta["way_max"])

    def describe(self) -> dict[str, Any]:
        """What was saved beside the tasks."""
        return {k: v for k, v in self._loaded[0].items() if k not in ("fingerprint", "way_max")}


def tasks(data: ClassDataset, way: Count = 5, shot: Count = 1, **options: Any) -> ClassTasks:
    """`ClassTasks(data, way, shot, …)`: the tasks of a data set."""
    return ClassTasks(data, way, shot, **options)
