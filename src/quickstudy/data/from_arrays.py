"""An array of examples and an array of labels as a `ClassDataset`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from quickstudy.data.arrays import examples
from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import DataError


def from_arrays(
    x: object,
    y: object,
    *,
    names: Sequence[str] | None = None,
    attributes: Mapping[str, object] | None = None,
    name: str = "arrays",
) -> ClassDataset:
    """A data set from an array of examples and one label each, NumPy's, torch's or lists.

    Args:
        x: `[M, H, W]`, `[M, H, W, C]` with C of 1, 3 or 4, `[M, C, H, W]`, or `[M, D]`; pictures of whole
            numbers, and vectors of uint8, hold pixels from 0 to 255; other numbers are left as they are.
        y: `[M]` labels, numbers or text.
        names: the class names, in the order of the sorted labels; by default the labels themselves.
        attributes: further whole-number labels `[M]`, by name.

    Raises:
        DataError: lengths that differ, NaN or infinity, an unusable shape or type, duplicate names.

    Example:
        >>> from_arrays(np.zeros((6, 8, 8), np.uint8), list("babaab"))
        ClassDataset(arrays: 2 classes, 3 examples each, 1x8x8 torch.uint8)
    """
    pictures = _pictures(examples(x, f"{name}: examples").detach().cpu(), name)
    values, codes = _classes(y, name)
    if len(codes) != len(pictures):
        raise DataError(f"{name}: {len(pictures)} examples but {len(codes)} labels")
    order = np.argsort(codes, kind="stable")
    if names is not None and len(names) != len(values):
        raise DataError(f"{name}: {len(names)} names for {len(values)} classes")
    extra = {k: _attribute(k, v, len(codes), name)[order] for k, v in (attributes or {}).items()}
    return ClassDataset(
        x=pictures[order],
        offsets=torch.tensor([0, *np.bincount(codes, minlength=len(values)).cumsum()]),
        names=tuple(map(str, values if names is None else names)),
        attributes=extra,
        name=name,
    )


def _pictures(x: Tensor, name: str) -> Tensor:
    """`[M, C, H, W]` or `[M, D]`, uint8 or float32."""
    if x.ndim == 0 or len(x) == 0:
        raise DataError(f"{name}: no examples")
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[-1] in (1, 3, 4) and x.shape[1] not in (1, 3, 4):
        x = x.permute(0, 3, 1, 2)
    elif x.ndim not in (2, 4):
        raise DataError(f"{name}: examples of shape {tuple(x.shape[1:])} are neither pictures nor vectors")
    if x.dtype == torch.uint8:
        return x.contiguous()
    bad = (~x.isfinite()).flatten(1).any(1).nonzero()
    if len(bad):
        raise DataError(f"{name}: example {bad[0].item()} holds NaN or infinity ({len(bad)} such examples)")
    return x.float().contiguous()


def _classes(y: object, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The different labels in order, and the place of each example's label among them."""
    marks = np.asarray(y.detach().cpu() if isinstance(y, Tensor) else y)
    if marks.ndim != 1:
        raise DataError(f"{name}: labels of shape {marks.shape}; one per example is needed")
    if marks.dtype.kind == "f" and (marks % 1 != 0)[np.isfinite(marks)].any():
        raise DataError(f"{name}: label {marks[marks % 1 != 0][0]} is a fraction; give whole numbers or text")
    if marks.dtype.kind == "f" and not np.isfinite(marks).all():
        raise DataError(f"{name}: label {np.flatnonzero(~np.isfinite(marks))[0]} is NaN or infinity")
    try:
        values, codes = np.unique(marks, return_inverse=True)
    except TypeError:
        raise DataError(f"{name}: labels of different kinds cannot be sorted; give text or numbers") from None
    return values, codes


def _attribute(word: str, values: object, count: int, name: str) -> Tensor:
    array = np.asarray(values)
    if array.dtype.kind not in "iub":
        raise DataError(
            f"{name}: attribute {word!r} is of type {array.dtype}, not whole numbers; number its values, "
            "as np.unique(values, return_inverse=True) does"
        )
    if array.shape != (count,):
        raise DataError(f"{name}: attribute {word!r} has shape {array.shape}, not one for each of {count}")
    return torch.from_numpy(array.astype(np.int64))
