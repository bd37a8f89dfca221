"""Functions of tensors as programs: traced into plain operations, and compiled by torch.compile's back end.

What the C++ compiler (on a GPU, Triton) made lies in the cache folder, so that it is made once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, library
from torch.fx import GraphModule

from quickstudy.data.cache import cache_root
from quickstudy.errors import UserError

Function = Callable[[Sequence[Tensor]], Sequence[Tensor]]


@dataclass(frozen=True)
class TensorSpec:
    """What a program is made for: a tensor's shape, type and device."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @staticmethod
    def of(v: Tensor) -> TensorSpec:
        """That of a tensor."""
        return TensorSpec(tuple(v.shape), v.dtype, v.device)

    def example(self) -> Tensor:
        """Such a tensor."""
        return torch.zeros(self.shape, dtype=self.dtype, device=self.device)


class Program:
    """A function that stands as one operation in the graph of another.

    Args:
        outputs: such as it returns.
        run: what it does; None while that is being traced.
        number: its name in graphs; alike programs have the same, so that graphs with them are alike too.
    """

    def __init__(
        self,
        outputs: Sequence[TensorSpec],
        run: Callable[..., Sequence[Tensor]] | None = None,
        number: int | None = None,
    ) -> None:
        self.outputs, self.run = outputs, run
        self.number = next(_provisional) if number is None else number
        _programs[self.number] = self

    @staticmethod
    def known(number: int) -> Program | None:
        """The program of that number, if one is in use."""
        return _programs.get(number)


_provisional = count(-1, -1)
_programs: WeakValueDictionary[int, Program] = WeakValueDictionary()
_operations = library.Library("quickstudy", "DEF")
_operations.define("program(int number, Tensor[] inputs) -> Tensor[]", tags=(torch.Tag.needs_exact_strides,))


def _run(number: int, inputs: list[Tensor]) -> list[Tensor]:
    run = _programs[number].run
    assert run is not None
    return list(run(*inputs))


def _like(number: int, inputs: list[Tensor]) -> list[Tensor]:
    return [torch.empty(v.shape, dtype=v.dtype, device=v.device) for v in _programs[number].outputs]


_operations.impl("program", _run, "CompositeExplicitAutograd")
library.register_fake("quickstudy::program", _like, lib=_operations)
CALL = torch.ops.quickstudy.program.default


def calling(program: Program, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The operation that a program is."""
    return CALL(program.number, [v.contiguous() for v in inputs])


def traced(function: Function, inputs: Sequence[Tensor]) -> GraphModule:
    """The operations of a function.

    Raises:
        UserError: it draws random numbers, which would be others each time it is run again.

    >>> graph = traced(lambda v: [v[0] + v[1], v[0] * 3], [torch.ones(2), torch.ones(2)])
    >>> graph(torch.ones(2), torch.ones(2))
    [tensor([2., 2.]), tensor([3., 3.])]
    """
    from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, make_fx

    with disable_proxy_modes_tracing():  # a trace within a trace is one of its own
        module = make_fx(lambda *v: list(function(v)), tracing_mode="fake")(*inputs)
    graph: Any = module.graph
    graph.eliminate_dead_code()
    for node in graph.nodes:
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            raise UserError(
                f"the net draws random numbers ({node.target}), as dropout does, which the way back could "
                "not draw again"
            )
    last, outputs = graph.output_node(), []
    with graph.inserting_before(last):
        for node in last.args[0]:  # each in memory of its own
            own = node.op != "placeholder" and node not in outputs
            outputs.append(node if own else graph.call_function(torch.ops.aten.clone.default, (node,)))
    last.args = (outputs,)
    module.recompile()
    return module


def digest(graph: GraphModule, inputs: Sequence[TensorSpec]) -> int:
    """A number that graphs which compute the same have in common."""
    text = [graph.code, *map(str, inputs)]
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            held = getattr(graph, str(node.target))
            if not isinstance(held, Tensor):
                raise UserError(f"what is computed holds a {type(held).__name__}")
            text += [str(TensorSpec.of(held)), str(held.tolist())]
    return int.from_bytes(hashlib.blake2b("\n".join(text).encode(), digest_size=7).digest())


def compiled(graph: GraphModule, inputs: Sequence[TensorSpec]) -> Callable[..., Sequence[Tensor]]:
    """The same function, compiled for such inputs."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of its own parts
        # Imports that take seconds, for those alone who compile.
        import torch._inductor as inductor
        from torch._guards import TracingContext, tracing
        from torch._subclasses import FakeTensorMode
        from torch.fx.experimental.symbolic_shapes import ShapeEnv

        with tracing(TracingContext(FakeTensorMode(shape_env=ShapeEnv()))):  # torch keeps nothing without
            return inductor.compile(graph, [spec.example() for spec in inputs])


@contextmanager
def kept() -> Iterator[None]:
    """What is traced and compiled within this block is kept in this library's cache folder, or where the user
    says; torch says its own place as soon as it traces."""
    name = "TORCHINDUCTOR_CACHE_DIR"
    if name in os.environ:
        yield
        return
    os.environ[name] = str(cache_root() / "compiled")
    try:
        yield
    finally:
        os.environ.pop(name, None)


def available(device: torch.device) -> bool:
    """Whether a compiler for this device is here: of C++, and on a GPU Triton."""
    if device.type == "cuda":
        return find_spec("triton") is not None
    named = os.environ.get("CXX", "").split()[:1]
    return any(shutil.which(name) for name in (*named, "g++", "clang++", "c++"))


def check_available(device: torch.device) -> None:
    """Refuse to compile where no compiler is here.

    Raises:
        UserError: none is.
    """
    if not available(device):
        name = "Triton" if device.type == "cuda" else "C++ compiler (g++, clang++)"
        raise UserError(f"no {name} is here")
