"""Tasks drawn from a `ClassDataset`: N classes, K support and Q query examples of each."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import TaskError
from quickstudy.tasks.chance import choose, uniforms
from quickstudy.tasks.frozen import FrozenTasks, save_draw
from quickstudy.tasks.rows import Draw, Environment, Rows, gather, plain
from quickstudy.tasks.sizes import Count, Range, Sizes
from quickstudy.tasks.task import Task

__all__ = ["ClassTasks", "Count", "Draw", "Environment", "FrozenTasks", "gather", "tasks"]


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
        labelled: the share of each class's examples that have labels, the first ones: support and query
            examples are taken from these, unlabelled ones from the others.
        frequency: draw classes in proportion to their number of examples instead of uniformly.
        support_from: (attribute, values): take support examples only where the attribute has such a value.
        query_from: the same for the query set: another environment than the support set's. Where only one
            of the two is given, the other set comes from all other examples.

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
    labelled: float = 1.0
    frequency: bool = False
    support_from: Environment | None = None
    query_from: Environment | None = None
    _tables: tuple[Rows, Rows, Rows] = field(init=False, repr=False)
    _sizes: Sizes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not len(self.data):
            raise TaskError(f"{self.data.name} has no classes here")
        separate = self.support_from is not None or self.query_from is not None
        support = queries = Rows.of(self.data)
        if separate:  # of one alone the other is the rest
            support = Rows.of(self.data, self.support_from or self.query_from, others=not self.support_from)
            queries = Rows.of(self.data, self.query_from or self.support_from, others=not self.query_from)
        spare = support
        if not 0 < self.labelled <= 1:
            raise TaskError(f"labelled must be a share above 0 and at most 1, not {self.labelled}")
        if self.labelled < 1:
            labelled, spare = support.parted(self.labelled)
            support, queries = labelled, queries if separate else labelled
        way, shot = Range.of("way", self.way, 2), Range.of("shot", self.shot, 1)
        unlabelled = Range.single("unlabelled", self.unlabelled)
        query: Count | None = self.query
        if query is None:
            taken = shot.high + (unlabelled if spare is support else 0)
            left = int(queries.counts.min()) - (0 if separate else taken)
            query = max(1, min(15, left))
        sizes = Sizes(way, shot, Range.of("query", query, 1))
        resolved = {
            "way": way.like(self.way),
            "shot": shot.like(self.shot),
            "query": sizes.query.like(query),
            "unlabelled": unlabelled,
            "support_from": plain(self.support_from),
            "query_from": plain(self.query_from),
            "distractors": Range.single("distractors", self.distractors),
            "seed": operator.index(self.seed),
            "_tables": (support, queries, spare),
            "_sizes": sizes,
        }
        for name, value in resolved.items():
            object.__setattr__(self, name, value)
        self._check(separate)

    def _check(self, separate: bool) -> None:
        name, classes = self.data.name, len(self.data)
        way, (_, shot), (_, query) = self._sizes
        if way.low < way.high and self.unlabelled:
            raise TaskError("unlabelled examples need one number of ways, not a range")
        if self.distractors and not self.unlabelled:
            raise TaskError(
                "distractors appear among unlabelled examples only: say how many of these, unlabelled=5, or "
                "distractors=0"
            )
        if way.high + self.distractors > classes:
            extra = f" and {self.distractors} distractor classes" if self.distractors else ""
            raise TaskError(
                f"{name} has {classes} classes here: {way.high} ways{extra} are more than there are"
            )
        support, queries, spare = self._tables
        joint = (0 if separate else query) + (self.unlabelled if spare is support else 0)
        wants = [(support, shot + joint), (queries, query), (spare, self.unlabelled)]
        for table, need in wants:
            worst = int(table.counts.argmin())
            if table.counts[worst] < need:
                count = int(table.counts[worst])
                what = f"{shot} shot{'s' * (shot > 1)} + {query} quer{'ies' if query > 1 else 'y'}"
                what += f" + {self.unlabelled} unlabelled" if self.unlabelled else ""
                share = f" at labelled={self.labelled}" if self.labelled < 1 else ""
                raise TaskError(
                    f"{name}: class {self.data.names[worst]!r} has {count} example{'s' * (count != 1)}"
                    f"{share}, too few for {what}"
                )
        overlap = np.intersect1d(support.rows, queries.rows)
        if separate and len(overlap):
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
        (_, ways), (_, shot), (_, query) = self._sizes
        n = ways + self.distractors
        classes = self._classes(indices, n)  # [T, N + D]
        support_rows, query_rows, spare_rows = self._tables
        u = self.unlabelled

        def some(table: Rows, k: int, stream: int) -> np.ndarray:  # [T, N + D, k]
            chance = uniforms(self.seed, stream, indices, n * 2 * k).reshape(t, n, 2 * k)
            return table.take(classes, choose(chance, table.counts[classes], k))

        # What is taken from one table is taken at once, so that no example is taken twice.
        joint_query = query if query_rows is support_rows else 0
        joint_spare = u if spare_rows is support_rows else 0
        rows = some(support_rows, shot + joint_query + joint_spare, 1)
        support, queries, spare = np.split(rows, [shot, shot + joint_query], axis=-1)
        if query_rows is not support_rows:
            queries = some(query_rows, query, 2)
        if spare_rows is not support_rows:
            spare = some(spare_rows, u, 8)
        support, queries = support[:, :ways].copy(), queries[:, :ways].copy()
        self._blank(indices, support, queries)
        labels = np.arange(ways)
        return Draw(
            *self._shuffled(4, indices, support, np.repeat(labels, shot)),
            *self._shuffled(5, indices, queries, np.repeat(labels, query)),
            classes[:, :ways],
            self._shuffled(6, indices, spare, np.zeros(n * u, np.int64))[0],
        )

    def _blank(self, indices: np.ndarray, support: np.ndarray, queries: np.ndarray) -> None:
        """Ranged way, shot and query draw the largest, `[T, N, k]`, and blank out what is too much."""
        way, shot, query = self._sizes
        ways = np.arange(way.high)
        u = uniforms(self.seed, 3, indices, 3 + way.high)
        gone = ways >= way.at(u[:, :1])
        shots = shot.at(u[:, 3:] if self.ragged else np.repeat(u[:, 1:2], way.high, 1))
        asked = query.at(u[:, 2:3])
        support[gone[..., None] | (np.arange(shot.high) >= shots[..., None])] = -1
        queries[gone[..., None] | (np.arange(query.high) >= asked[..., None])] = -1

    def _shuffled(
        self, stream: int, indices: np.ndarray, rows: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows `[T, N, k]` flattened in a random order, so that no position tells the class."""
        flat = rows.reshape(len(rows), -1)
        order = np.argsort(uniforms(self.seed, stream, indices, flat.shape[1]), axis=-1)
        return np.take_along_axis(flat, order, -1), labels[order]

    def batch(self, indices: np.ndarray) -> Task:
        """The tasks with these indices `[T]`: pictures `[T, N*K, C, H, W]`, float32 in 0 to 1."""
        return gather(self.data.x, self.draw(np.asarray(indices)), self._sizes.way.high)

    def task(self, index: int) -> Task:
        """The task with this number, by itself and without padding."""
        return next(self.batch(np.array([index])).unbatch())

    def describe(self) -> dict[str, Any]:
        """Data set, way, shot, query, seed, and what else is not as usual, as JSON."""
        usual = {f.name: f.default for f in fields(self) if f.init and f.name != "data"}
        always = ("way", "shot", "query", "seed")
        options = {k: getattr(self, k) for k in usual}
        told = {k: v for k, v in options.items() if k in always or v != usual[k]}
        return {"data": self.data.name, "classes": len(self.data), **told}

    def save(self, path: str | Path, n_tasks: int) -> None:
        """Write the first `n_tasks` tasks (row numbers, no pixels) to a safetensors file.

        Raises:
            TaskError: no tasks.
            RunError: the file cannot be written.
        """
        if n_tasks < 1:
            raise TaskError(f"{n_tasks} tasks to save; at least 1 is needed")
        draw = self.draw(np.arange(n_tasks))
        save_draw(Path(path), draw, self.data, self._sizes.way.high, self.describe())


tasks = ClassTasks
"""The short name: `qs.tasks(data, way=5, shot=1)`."""
