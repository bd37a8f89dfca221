"""What processes tell each other, as bytes: JSON for the shape, safetensors for tensors; never a pickle."""

from __future__ import annotations

import json
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

PLAIN = (str, int, float, bool, type(None))


def to_bytes(value: Any) -> bytes:
    """Nested tuples, lists and dictionaries of tensors on the processor, numbers, words and None.

    Raises:
        TypeError: it holds something else.

    >>> from_bytes(to_bytes({"step": 3, "mean": (0.5, None)}))
    {'step': 3, 'mean': (0.5, None)}
    """
    tensors: dict[str, Tensor] = {}

    def shape(value: Any) -> Any:
        if isinstance(value, Tensor):
            tensors[str(len(tensors))] = value.detach().clone(memory_format=torch.contiguous_format)
            return {"tensor": str(len(tensors) - 1)}
        if type(value) is tuple:
            return {"tuple": [shape(v) for v in value]}
        if isinstance(value, list):
            return [shape(v) for v in value]
        if isinstance(value, dict):
            return {"dict": [[shape(k), shape(v)] for k, v in value.items()]}
        if isinstance(value, PLAIN):
            return value
        raise TypeError(f"a {type(value).__name__} cannot be told to another process")

    head = json.dumps(shape(value)).encode()
    return len(head).to_bytes(8, "little") + head + save(tensors)


def from_bytes(data: bytes) -> Any:
    """What `to_bytes` was given."""
    begin = 8 + int.from_bytes(data[:8], "little")
    tensors = load(data[begin:])

    def value(shape: Any) -> Any:
        if isinstance(shape, list):
            return [value(v) for v in shape]
        if not isinstance(shape, dict):
            return shape
        ((kind, inside),) = shape.items()
        if kind == "tensor":
            return tensors[inside]
        if kind == "tuple":
            return tuple(value(v) for v in inside)
        return {value(k): value(v) for k, v in inside}

    return value(json.loads(data[8:begin]))
