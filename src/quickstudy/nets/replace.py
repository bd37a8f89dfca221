"""Layers of a net exchanged for others, in place."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn


def replaced(net: nn.Module, new: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """The same net with `new(layer)` in the place of each layer, in place.

    A layer that is used in several places stays one; what is in a layer is looked at where `new` left it.

    >>> replaced(nn.Sequential(nn.ReLU()), lambda layer: nn.Tanh() if type(layer) is nn.ReLU else layer)[0]
    Tanh()
    """
    found: dict[nn.Module, nn.Module] = {}

    def replace(module: nn.Module) -> nn.Module:
        if module not in found:
            found[module] = new(module)
            if found[module] is module:
                # Not `named_children`, which leaves out a second name of the same layer.
                for name, child in module._modules.items():
                    if child is not None:
                        module._modules[name] = replace(child)
        return found[module]

    return replace(net)
