"""A net called with given weights instead of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from quickstudy.errors import UserError


def with_weights(net: nn.Module, weights: Mapping[str, Tensor], inputs: Sequence[Any]) -> Any:
    """`net(*inputs)` with these parameters and buffers, by the names that `named_parameters` and
    `named_buffers` give; the net's own stay what they were.

    `torch.func.functional_call` by itself leaves a layer that stands in several places with the given
    weights: it takes the layer's names for tied tensors, and puts back each in turn.

    Raises:
        UserError: the net has nothing of some name.

    >>> shared = nn.Linear(2, 2)
    >>> net = nn.Sequential(shared, nn.ReLU(), shared)
    >>> y = with_weights(net, {k: torch.zeros_like(p) for k, p in net.named_parameters()}, [torch.ones(1, 2)])
    >>> y, isinstance(net[0].weight, nn.Parameter)
    (tensor([[0., 0.]]), True)
    """
    return torch.func.functional_call(net, each_once(net, weights), tuple(inputs), tie_weights=False)


def each_once(net: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights by a name for each place they are kept in: a layer has one name, tied tensors one each.

    Raises:
        UserError: the net has nothing of some name.
    """
    first: dict[int, str] = {}
    found, unknown = {}, set(weights)
    for prefix, layer in net.named_modules():  # each layer once
        for own, tensor in (*layer._parameters.items(), *layer._buffers.items()):
            if tensor is not None:
                name = f"{prefix}.{own}" if prefix else own
                known = first.setdefault(id(tensor), name)
                unknown.discard(name)
                if name in weights or known in weights:
                    found[name] = weights[name if name in weights else known]
    if unknown:
        raise UserError(f"{type(net).__name__} has no parameter or buffer {', '.join(sorted(unknown))}")
    return found
