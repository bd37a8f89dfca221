"""A support set as a user gives it: checked, and in memory of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from quickstudy.errors import DataError
from quickstudy.tasks.task import Support, as_input


def checked(support: Support, every_class: bool = False) -> Support:
    """A support set as `Support.of` makes it, its padding taken out; it may state more ways than it shows,
    unless `every_class` must have an example."""
    if support.mask is not None:  # the ways of what is padded are those of the largest task
        support = replace(support, x=support.x[support.mask], y=support.y[support.mask], way=None)
    found = Support.of(support.x, support.y)
    way = found.way if support.way is None else support.way
    if way is not None and (found.way is None or found.way > way):
        shown = "real targets" if found.way is None else f"labels up to {found.way - 1}"
        raise DataError(f"support set: {shown}, but it states {way} ways")
    if every_class and way is not None and found.way is not None and found.way < way:
        raise DataError(f"support set: class {found.way} has no example (it states {way} ways)")
    return replace(found, way=way, unlabelled=more(support.unlabelled, found.x))


def more(unlabelled: object, x: Tensor) -> Tensor | None:
    """Unlabelled examples beside labelled ones `[n, …]`; None where there are none."""
    if unlabelled is None:
        return None
    found = as_input(unlabelled, x.dtype, what="unlabelled examples")
    if found.shape[1:] != x.shape[1:]:
        raise DataError(
            f"unlabelled examples of shape {tuple(found.shape)} beside labelled ones of {tuple(x.shape)}"
        )
    if not torch.isfinite(found).all():
        raise DataError("unlabelled examples: one holds NaN or infinity")
    return found if len(found) else None


def shuffled(support: Support) -> Support:
    """A support set that is sorted by class, in an order drawn by a fixed seed; any other as it is.

    Whoever reads examples in order was meta-trained on shuffled ones, and class after class is what files lie
    in.

    >>> shuffled(Support.of(torch.rand(6, 1), [0, 0, 1, 1, 2, 2])).y.tolist()
    [1, 2, 1, 0, 0, 2]
    """
    y = support.y
    if support.way is None or len(y) < 3 or not bool((y[1:] >= y[:-1]).all()):
        return support
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0)).to(y.device)
    return replace(support, x=support.x[order], y=y[order])


def copied(support: Support, device: torch.device, dtype: torch.dtype) -> Support:
    """A support set in memory of its own, its floats in `dtype`."""

    def copy(v: Tensor | None) -> Tensor | None:
        return None if v is None else v.to(device, dtype if v.is_floating_point() else v.dtype, copy=True)

    tensors = {
        "x": as_input(support.x),
        "y": support.y,
        "mask": support.mask,
        "unlabelled": None if support.unlabelled is None else as_input(support.unlabelled),
    }
    copies: dict[str, Any] = {k: copy(v) for k, v in tensors.items()}
    return replace(support, **copies)
