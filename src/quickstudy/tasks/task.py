"""`Task`: one small learning problem, or a batch of them with one more leading dimension."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from quickstudy.data.arrays import examples, numbers
from quickstudy.errors import DataError


def as_float(x: Tensor) -> Tensor:
    """uint8 pixels (0 to 255) as float32 in 0 to 1; floats as they are.

    >>> as_float(torch.tensor([0, 255], dtype=torch.uint8))
    tensor([0., 1.])
    """
    return x.to(torch.float32).mul_(1 / 255) if x.dtype == torch.uint8 else x


def as_input(x: object, dtype: torch.dtype | None = None, what: str = "inputs") -> Tensor:
    """Inputs as a net takes them: numbers of any type, from NumPy, torch or lists, as a floating tensor.

    Args:
        x: `[n, …]`; uint8, and pictures of other whole numbers within 0 to 255, become fractions.
        dtype: of the answer; by default a floating tensor keeps its own and all else becomes float32.
        what: what `x` is called in messages.

    Raises:
        DataError: text, objects, complex numbers, rows of unequal length, whole numbers that are no pixels.

    >>> as_input(np.full((1, 1, 1, 2), 255))
    tensor([[[[1., 1.]]]])
    """
    floats = as_float(examples(x, what))
    return floats if dtype is None else floats.to(dtype)


@dataclass(frozen=True, eq=False)
class Support:
    """What a learner may learn from.

    Args:
        x: inputs `[n, …]`; n is N*K for N-way K-shot.
        y: labels `[n]`, int64 in 0…way-1, or regression targets `[n, D]`.
        way: number of classes; None for regression.
        mask: bool `[n]`, False where a row is padding; None where none is.
        unlabelled: more inputs `[u, …]`, without labels.
    """

    x: Tensor
    y: Tensor
    way: int | None = None
    mask: Tensor | None = None
    unlabelled: Tensor | None = None

    @staticmethod
    def of(x: object, y: object) -> Support:
        """Plain tensors, arrays or lists as a support set, checked.

        Args:
            x: examples `[n, …]`, see `as_input`.
            y: whole numbers from 0 `[n]`, each class at least once, or real targets `[n]` or `[n, D]`.

        Raises:
            DataError: what are no numbers, lengths that differ, labels that leave a class out, NaN.

        >>> Support.of(np.zeros((4, 1, 8, 8)), [0, 1, 0, 1]).way
        2
        """
        x = as_input(x, what="support set: examples")
        y = _targets(y, x)
        if x.ndim < 2:
            raise DataError(f"support set: examples of shape {tuple(x.shape)}; one row each is needed")
        if len(x) != len(y):
            raise DataError(f"support set: {len(x)} examples but {len(y)} labels")
        if len(x) == 0:
            raise DataError("support set: no examples")
        if not torch.isfinite(x).all():
            raise DataError("support set: an example holds NaN or infinity")
        if y.is_floating_point():
            if not torch.isfinite(y).all():
                raise DataError("support set: a target is NaN or infinity")
            return Support(x, y if y.ndim > 1 else y[:, None])
        present = y.unique()  # sorted
        if present[0] < 0:
            raise DataError(f"support set: label {present[0]} is negative; labels count from 0")
        skipped = (present != torch.arange(len(present), device=y.device)).nonzero()
        if len(skipped):
            raise DataError(
                f"support set: class {skipped[0].item()} has no example (labels run to {present[-1]})"
            )
        return Support(x, y, len(present))

    @property
    def ways(self) -> int:
        """The number of classes, for learners that need class labels; an error where there are none."""
        if self.way is None:
            raise DataError("support set: this learner needs class labels, whole numbers from 0, not targets")
        return self.way


def _targets(given: object, x: Tensor) -> Tensor:
    """Labels as int64 `[n]`, or real targets of the examples' type."""
    try:
        y = numbers(given, "labels")
    except DataError as error:
        raise DataError(
            f"support set: {error}; number the classes from 0, as np.unique(y, return_inverse=True) does"
        ) from None
    y = y.to(x.dtype) if y.is_floating_point() else y.long()
    if y.ndim == 0 or (y.ndim != 1 and not y.is_floating_point()):
        raise DataError(
            f"support set: labels of shape {tuple(y.shape)}; one whole number per example is needed"
        )
    return y


@dataclass(frozen=True, eq=False)
class Query:
    """What a predictor is judged on: inputs `x` `[q, …]`, answers `y` `[q]`, `mask` as in `Support`."""

    x: Tensor
    y: Tensor
    mask: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Task:
    """A support set, a query set, and what `prepare` drew for the learner (`extra`).

    A batch of T tasks is the same type with T as every tensor's first dimension.
    `classes` `[N]` tells which classes of the data set the labels 0…N-1 stand for.
    """

    support: Support
    query: Query
    classes: Tensor | None = None
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the task by name; with `with_tensors`, the way through a map over tasks."""
        parts = {
            "support.x": self.support.x,
            "support.y": self.support.y,
            "support.mask": self.support.mask,
            "support.unlabelled": self.support.unlabelled,
            "query.x": self.query.x,
            "query.y": self.query.y,
            "query.mask": self.query.mask,
            "classes": self.classes,
            **{f"extra.{k}": v for k, v in self.extra.items()},
        }
        return {k: v for k, v in parts.items() if v is not None}

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> Task:
        """The same task around other tensors, named as `tensors` names them."""
        get = tensors.get
        return Task(
            Support(
                tensors["support.x"],
                tensors["support.y"],
                self.support.way,
                get("support.mask"),
                get("support.unlabelled"),
            ),
            Query(tensors["query.x"], tensors["query.y"], get("query.mask")),
            get("classes"),
            {k.removeprefix("extra."): v for k, v in tensors.items() if k.startswith("extra.")},
        )

    def to(self, target: torch.device | torch.dtype) -> Task:
        """Every tensor on a device, or every floating-point one in a dtype."""

        def move(v: Tensor) -> Tensor:
            return v if isinstance(target, torch.dtype) and not v.is_floating_point() else v.to(target)

        return self.with_tensors({k: move(v) for k, v in self.tensors().items()})

    def unbatch(self) -> Iterator[Task]:
        """The tasks of a batch one by one, padding taken out, `way` counted where it varies."""
        parts = self.tensors()
        for t in range(len(self.support.x)):
            yield self.with_tensors({k: v[t] for k, v in parts.items()}).trimmed()

    def trimmed(self) -> Task:
        """One task without its padding."""
        support, query = self.support, self.query
        if support.mask is not None:
            keep = support.mask
            way = None if support.way is None else int(support.y[keep].max()) + 1
            support = replace(support, x=support.x[keep], y=support.y[keep], mask=None, way=way)
        if query.mask is not None:
            query = Query(query.x[query.mask], query.y[query.mask])
        classes = self.classes
        if classes is not None and support.way is not None:
            classes = classes[: support.way]
        return Task(support, query, classes, self.extra)

    @property
    def padded(self) -> bool:
        """Whether any row is padding."""
        return self.support.mask is not None or self.query.mask is not None


class TaskSource(Protocol):
    """Where tasks come from: a pure function of the index, the same on every machine."""

    def batch(self, indices: np.ndarray) -> Task:
        """The tasks with these indices `[T]`, stacked."""
        ...

    def describe(self) -> dict[str, object]:
        """What a report says of the tasks, as JSON."""
        ...
