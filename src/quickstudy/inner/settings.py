"""What a module computes by, besides its tensors and its layers: told from what it was before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from weakref import ref

import numpy as np
import torch
from torch import Tensor, nn

DEPTH = 3
"""So deep are objects looked into."""
_TORCHS = vars(nn.Module()).keys()
"""The attributes that every module has."""


def options(module: nn.Module) -> Iterator[tuple[str, object]]:
    """A module's attributes and those of its class, besides what is torch's own, and in each call another."""
    yield "training", module.training
    for kind in type(module).__mro__:
        if not kind.__module__.startswith(("torch.", "quickstudy.", "builtins")):
            yield from ((k, v) for k, v in vars(kind).items() if not k.startswith("__"))
    for name, value in vars(module).items():
        if name not in _TORCHS or (name.endswith("_hooks") and value):
            yield name, value


def settings(module: nn.Module) -> tuple[object, ...]:
    """What tells a learner's options, and what of it is trained, from those of another time.

    >>> net = nn.Linear(1, 1)
    >>> before = settings(net)
    >>> net.in_features = 2
    >>> settings(net) == before
    False
    """
    own = ((k, told_apart(v)) for k, v in options(module))
    return *own, *(p.requires_grad for p in module.parameters())


def told_apart(value: object, depth: int = DEPTH) -> object:
    """What tells a value from others: numbers, text and what is made of them by what they hold; an object
    also by its attributes, and theirs, so deep."""
    if isinstance(value, (list, tuple)):
        return type(value), *(told_apart(v, depth) for v in value)
    if isinstance(value, dict):
        return type(value), *((told_apart(k, depth), told_apart(v, depth)) for k, v in value.items())
    if isinstance(value, (set, frozenset)):
        return type(value), frozenset(told_apart(v, depth) for v in value)
    if isinstance(value, np.ndarray) and value.dtype != object:
        return type(value), value.shape, value.dtype.str, hash(value.tobytes())
    if value is None or isinstance(value, (bool, int, float, str, np.generic, torch.dtype, torch.device)):
        return type(value), repr(value)
    inside = getattr(value, "__dict__", None)
    if depth and isinstance(inside, dict) and not callable(value) and not isinstance(value, Tensor):
        return Same(value), told_apart(inside, depth - 1)
    return Same(value)


class Same:
    """Equal for one and the same object, while it lives."""

    def __init__(self, value: object) -> None:
        self.number = id(value)
        try:
            self.value: Callable[[], object] = ref(value)
        except TypeError:
            self.value = lambda: value

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        mine = self.value()
        return isinstance(other, Same) and mine is not None and mine is other.value()
