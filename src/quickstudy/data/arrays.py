"""Examples as a user has them (NumPy, torch, lists, any type of number) as one kind of tensor."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from quickstudy.errors import DataError


def numbers(values: object, what: str) -> Tensor:
    """Anything array-like as a tensor of its own type, on memory that may be written to.

    Args:
        what: what the values are called in messages.

    Raises:
        DataError: text, objects, complex numbers, or rows of unequal length.

    >>> numbers([1, 2], "labels")
    tensor([1, 2])
    """
    if isinstance(values, Tensor):
        if values.is_complex():
            raise DataError(f"{what}: {values.dtype} values are not real numbers")
        return values
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError):
        raise DataError(f"{what}: not an array of numbers; are all rows of one length?") from None
    if array.dtype.kind not in "fiub":
        raise DataError(f"{what}: values of type {array.dtype} are not numbers")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)  # torch computes little with the others
    return torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))


def examples(x: object, what: str) -> Tensor:
    """Examples as uint8 pixels (0 to 255) or as floats.

    Pictures `[n, …]` of at least two dimensions each that hold whole numbers are pixels; vectors `[n, D]`
    of whole numbers other than uint8 are just numbers. A floating tensor is answered as it is, other
    floats as float32.

    Raises:
        DataError: no numbers, or pictures of whole numbers below 0 or above 255.

    >>> examples(np.full((1, 1, 2, 2), 255), "pictures").dtype, examples([[255, 256]], "counts")
    (torch.uint8, tensor([[255., 256.]]))
    """
    tensor = numbers(x, what)
    if tensor.is_floating_point():
        return tensor if isinstance(x, Tensor) else tensor.float()
    if tensor.dtype == torch.uint8:
        return tensor
    if tensor.dtype == torch.bool or tensor.ndim < 3:
        return tensor.float()
    low, high = (int(tensor.min()), int(tensor.max())) if tensor.numel() else (0, 0)
    if low < 0 or high > 255:
        raise DataError(
            f"{what}: whole numbers from {low} to {high} are not pixels from 0 to 255; "
            "scale them, or give floats from 0 to 1"
        )
    return tensor.to(torch.uint8)
