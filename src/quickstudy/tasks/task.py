"""`Task`: one small learning problem, or a batch of them with one more leading dimension."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from quickstudy.errors import DataError


def as_float(x: Tensor) -> Tensor:
    """uint8 pixels (0 to 255) as float32 in 0 to 1; floats as they are.

    >>> as_float(torch.tensor([0, 255], dtype=torch.uint8))
    tensor([0., 1.])
    """
    return x.to(torch.float32).mul_(1 / 255) if x.dtype == torch.uint8 else x


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
    def of(x: Tensor, y: Tensor) -> Support:
        """Plain tensors as a support set, checked: lengths, labels, finite numbers.

        >>> Support.of(torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 0, 1])).way
        2
        """
        x, y = as_float(torch.as_tensor(x)), torch.as_tensor(y)
        if y.ndim == 0 or (y.ndim != 1 and not y.is_floating_point()):
            raise DataError(
                f"support set: labels of shape {tuple(y.shape)}; one whole number per example is needed"
            )
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
        if int(y.min()) < 0:
            raise DataError(f"support set: label {int(y.min())} is negative; labels count from 0")
        way = int(y.max()) + 1
        missing = sorted(set(range(way)) - set(y.tolist()))
        if missing:
            raise DataError(f"support set: class {missing[0]} has no example (labels run to {way - 1})")
        return Support(x, y.long(), way)

    @property
    def ways(self) -> int:
        """The number of classes, for learners that need class labels; an error where there are none."""
        if self.way is None:
            raise DataError("support set: this learner needs class labels, whole numbers from 0, not targets")
        return self.way


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
