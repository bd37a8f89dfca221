"""Parameters and a rule's state as a list of tensors, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten


class Form(NamedTuple):
    """What is left of a value when its tensors are taken out."""

    spec: TreeSpec
    rest: tuple[Any, ...]


def taken_apart(value: Any) -> tuple[list[Tensor], Form]:
    """The tensors of nested tuples, lists and dictionaries, and what is left."""
    leaves, spec = tree_flatten(value)
    rest = tuple(None if isinstance(v, Tensor) else (v,) for v in leaves)
    return [v for v in leaves if isinstance(v, Tensor)], Form(spec, rest)


def put_together(tensors: Sequence[Tensor], form: Form) -> Any:
    """What `taken_apart` took apart.

    >>> import torch
    >>> tensors, form = taken_apart({"w": torch.zeros(2), "step": 3})
    >>> put_together([torch.ones(2)], form)
    {'w': tensor([1., 1.]), 'step': 3}
    """
    given = iter(tensors)
    return tree_unflatten([next(given) if v is None else v[0] for v in form.rest], form.spec)
