"""Whether a `forward` looks at what is no setting of its own net, and so may compute something else tomorrow
without a change of the net that can be seen.

Functions are taken for what they are today: one that is replaced in its module is not noticed.
"""

from __future__ import annotations

import inspect
import types
from typing import Any

from torch import Tensor, nn

INTERNAL = frozenset(vars(nn.Module()))


def looks_elsewhere(net: nn.Module) -> bool:
    """Whether the words of a net's `forward`, and of the functions it calls, may mean a setting of one of its
    layers, something in an object that it holds, or a global value.

    >>> class Scaled(nn.Module):
    ...     scale = 2.0
    ...     def forward(self, x):
    ...         return x * self.layer.scale
    >>> net = Scaled()
    >>> net.layer = nn.Identity()
    >>> looks_elsewhere(net)
    False
    >>> net.layer.scale = 3.0
    >>> looks_elsewhere(net)
    True
    """
    words, values = _words(type(net))
    layers = [layer for layer in net.modules() if layer is not net]
    places = [*layers, *{base for layer in layers for base in type(layer).__mro__} - {nn.Module, object}]
    of_layers = {k for place in places for k, v in vars(place).items() if not held(v)}
    values += [v for k, v in vars(net).items() if k in words - INTERNAL and not plain(v)]
    return bool(words & of_layers - INTERNAL) or not all(map(held, values))


def _words(kind: type[nn.Module]) -> tuple[set[str], list[Any]]:
    """The words in a class's `forward` and in the functions that it calls, and the values they know besides
    their arguments."""
    words: set[str] = set()
    values: list[Any] = []
    todo: list[Any] = [vars(base)["forward"] for base in kind.__mro__ if "forward" in vars(base)]
    done: set[int] = set()
    while todo:
        function = todo.pop()
        if isinstance(function, types.FunctionType) and id(function) not in done and not _of_torch(function):
            done.add(id(function))
            known = inspect.getclosurevars(function)
            found = [v for k, v in {**known.globals, **known.nonlocals}.items() if k != "__class__"]
            values += found
            new = set().union(*map(_names, _codes(function.__code__)))
            words |= new
            methods = [vars(base).get(k) for base in kind.__mro__ for k in new]
            todo += [getattr(v, "fget", getattr(v, "__func__", v)) for v in (*found, *methods)]
    return words, values


def _codes(code: types.CodeType) -> list[types.CodeType]:
    """A function's code, and that of the functions written in it."""
    inner = [v for v in code.co_consts if isinstance(v, types.CodeType)]
    return [code, *(each for v in inner for each in _codes(v))]


def _names(code: types.CodeType) -> set[str]:
    return {*code.co_names, *(v for v in code.co_consts if isinstance(v, str))}


def _of_torch(function: types.FunctionType) -> bool:
    return function.__module__.partition(".")[0] == "torch"


def held(value: object) -> bool:
    """Whether a value is one that a trace holds, whatever it comes to be: a layer, a tensor, code.

    >>> from functools import partial
    >>> held(nn.functional.relu), held(partial(nn.functional.softmax, dim=1))
    (True, False)
    """
    return code(value) or isinstance(value, (types.ModuleType, Tensor, nn.Module))


def code(value: object) -> bool:
    """Whether a value is a function or a class, that always does the same."""
    return isinstance(value, (types.FunctionType, types.BuiltinFunctionType, type))


def plain(value: object) -> bool:
    """Whether a value is told from others by how it is written.

    >>> plain([1, "a", {"b": None}]), plain([object()])
    (True, False)
    """
    if isinstance(value, dict):
        return all(plain(v) for pair in value.items() for v in pair)
    if isinstance(value, (list, tuple, set)):
        return all(map(plain, value))
    return isinstance(value, (bool, int, float, str, type(None)))
