"""Blocks in a `forward` that somebody wrote, found by tracing it (torch.fx: Reed et al. 2022, 2112.08429).

What a trace does not hold must not get lost by it: a `forward` that changes the net, draws numbers, makes
tensors of nothing, turns gradients off or looks at what may change elsewhere is left as it was written, and
so is one whose settings were changed after it was traced.
"""

from __future__ import annotations

import copy
import random
import types
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from quickstudy.nets.block import in_order, is_block
from quickstudy.nets.elsewhere import code, looks_elsewhere, plain

Program = Callable[..., Any]
"""A traced `forward`, to be called with the net itself first."""
RELU = (F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_")
MAX_POOL = (F.max_pool2d, torch.max_pool2d)


class Traced(nn.Module):
    """Before a net's own class: its `forward`, with each block in it computed as one."""

    native = True
    _programs: dict[Hashable, Program]

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        new = memo[id(self)] = type(self).__new__(type(self))
        own = {k: v for k, v in vars(self).items() if k != "_programs"}  # which hold nothing of this net
        vars(new).update(copy.deepcopy(own, memo), _programs=self._programs)
        return new

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _again, (type(self).__mro__[2], {k: v for k, v in vars(self).items() if k != "_programs"})

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        compiling = torch.compiler.is_compiling()  # and traces it itself
        program = None if compiling else self._programs.get(_settings(self))
        return super().forward(*args, **kwargs) if program is None else program(self, *args, **kwargs)


def trace(net: nn.Module) -> None:
    """Give a net whose `forward` calls a block's layers one by one those blocks, in place; any other is left.

    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.conv, self.norm = nn.Conv2d(1, 4, 3, padding=1), BatchNorm(4)
    ...     def forward(self, x):
    ...         return F.max_pool2d(F.relu(self.norm(self.conv(x))), 2)
    >>> from quickstudy.nets import BatchNorm
    >>> net = Net()
    >>> trace(net)
    >>> isinstance(net, Traced), isinstance(net, Net)
    (True, True)
    """
    if isinstance(net, Traced) or "forward" in vars(net):
        return
    programs: dict[Hashable, Program] = {}
    for training in (True, False):
        try:
            own = copy.deepcopy(net)  # of which a trace may leave something behind
            own.training = training
            program = _program(own)
        except Exception:  # whatever a forward does with something that is no tensor
            return
        if program is None:
            return
        programs[_settings(own)] = program
    vars(net)["_programs"] = programs  # as the class that it becomes has it
    kind = type(net)
    net.__class__ = types.new_class(
        kind.__name__, (Traced, kind), exec_body=lambda names: names.update(__module__=kind.__module__)
    )


def _again(kind: type[nn.Module], own: dict[str, Any]) -> nn.Module:
    """A traced net back from what it held: pickle knows its own class only."""
    net = kind.__new__(kind)
    net.__setstate__(own)
    trace(net)
    return net


def _program(net: nn.Module) -> Program | None:
    """A net's `forward` with its blocks; None where there is none or where a trace would lose something."""
    if looks_elsewhere(net):
        return None
    before = _settings(net), _chance()
    with torch.enable_grad():
        graph = _Tracer().trace(net)
    if before != (_settings(net), _chance()):
        return None
    found = [block for node in graph.nodes if (block := _block(net, node))]
    for block in found:
        _join(graph, block)
    return type(fx.GraphModule(net, graph)).forward if found else None


class _Tracer(fx.Tracer):
    """Traces a net's own `forward` and no other's."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True

    def create_node(self, kind: str, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        if not torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
            raise fx.proxy.TraceError("a trace does not hold how gradients and precision are set in it")
        if kind == "get_attr" and target.startswith("_tensor_constant"):
            raise fx.proxy.TraceError("a tensor that is made of nothing would be made once")
        return super().create_node(kind, target, *args, **kwargs)


def _block(net: nn.Module, last: fx.Node) -> dict[fx.Node, str | nn.Module] | None:
    """The nodes of a block that ends here, each with its layer: its name, or what a function stands for."""
    nodes = [last]
    while len(nodes) < 4:
        before = nodes[0].args[0] if nodes[0].args else None
        if not isinstance(before, fx.Node) or len(before.users) > 1:
            return None
        nodes.insert(0, before)
    layers = {node: layer for node in nodes if (layer := _layer(node)) is not None}
    modules = [net.get_submodule(v) if isinstance(v, str) else v for v in layers.values()]
    return layers if is_block(modules) else None


def _layer(node: fx.Node) -> str | nn.Module | None:
    if isinstance(node.target, str) and node.op == "call_module":
        return node.target if len(node.args) == 1 and not node.kwargs else None
    if node.target in RELU:
        return nn.ReLU()
    given: Any = node
    return _max_pool(*given.args, **given.kwargs) if node.target in MAX_POOL else None


def _max_pool(
    input: object,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> nn.MaxPool2d:
    return nn.MaxPool2d(kernel_size, stride, padding, dilation, return_indices, ceil_mode)


def _join(graph: fx.Graph, layers: dict[fx.Node, str | nn.Module]) -> None:
    """Let one call take the place of a block's four; it looks each time at what the layers are by then."""
    nodes, own = [*layers], [*layers.values()]

    def block(x: Tensor, *named: nn.Module | None) -> Tensor:
        return in_order(x, [a or b for a, b in zip(named, own, strict=True)])

    with graph.inserting_before(nodes[-1]):
        named = [graph.get_attr(v) if isinstance(v, str) else None for v in own]
        joined = graph.call_function(block, (nodes[0].args[0], *named))
    nodes[-1].replace_all_uses_with(joined)
    for node in reversed(nodes):
        graph.erase_node(node)


def _settings(net: nn.Module) -> Hashable:
    """What a `forward` may ask of the net besides its layers and tensors."""
    own = [(k, v) for k, v in vars(net).items() if k not in _OF_EVERY_MODULE]
    for kind in type(net).__mro__:
        if kind not in (Traced, nn.Module, object):
            own += [(k, v) for k, v in vars(kind).items() if not k.startswith("__")]
    return repr([(k, v) for k, v in own if plain(v)]), tuple((k, v) for k, v in own if code(v))


_OF_EVERY_MODULE = {*vars(nn.Module())} - {"training"} | {"_programs"}


def _chance() -> tuple[Any, ...]:
    """Where the generators of chance are."""
    old = np.random.get_state()  # noqa: NPY002 (only this one is shared; a user's forward may draw by it)
    return random.getstate(), repr(old), torch.get_rng_state().tolist()
