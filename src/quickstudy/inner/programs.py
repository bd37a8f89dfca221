"""Functions of tensors as programs: traced into plain operations, and compiled by torch.compile's back end.

What the C++ compiler (on a GPU, Triton) made lies in the cache folder, so that it is made once.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.fx import GraphModule

from quickstudy.data.cache import cache_root
from quickstudy.errors import UserError

Function = Callable[[Sequence[Tensor]], Sequence[Tensor]]


@dataclass(frozen=True)
class Sort:
    """What a program is made for: a tensor's shape, type and device."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @staticmethod
    def of(v: Tensor) -> Sort:
        """The sort of a tensor."""
        return Sort(tuple(v.shape), v.dtype, v.device)

    def example(self) -> Tensor:
        """A tensor of this sort."""
        return torch.zeros(self.shape, dtype=self.dtype, device=self.device)


class Program:
    """A function that stands as one operation in the graph of another; what it does, `run`, comes later.

    Args:
        inputs: for which it is made; they come contiguous.
        outputs: such as it returns.
    """

    operation: ClassVar[Any]

    def __init__(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        self.inputs, self.outputs = [[Sort.of(v) for v in vs] for vs in (inputs, outputs)]
        self.run: Callable[..., Sequence[Tensor]] | None = None
        self.number = next(_numbers)
        _programs[self.number] = self

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Its operation."""
        return torch.ops.quickstudy.program(self.number, [v.contiguous() for v in inputs])


_numbers = count()
_programs: WeakValueDictionary[int, Program] = WeakValueDictionary()
_library = torch.library.Library("quickstudy", "DEF")
_library.define("program(int number, Tensor[] inputs) -> Tensor[]", tags=(torch.Tag.needs_exact_strides,))


def _run(number: int, inputs: list[Tensor]) -> list[Tensor]:
    run = _programs[number].run
    assert run is not None
    return list(run(*inputs))


def _like(number: int, inputs: list[Tensor]) -> list[Tensor]:
    return [torch.empty(v.shape, dtype=v.dtype, device=v.device) for v in _programs[number].outputs]


Program.operation = torch.ops.quickstudy.program.default
_library.impl("program", _run, "CompositeExplicitAutograd")
torch.library.register_fake("quickstudy::program", _like, lib=_library)


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
                f"the net draws random numbers ({node.target}), as dropout does, which no compiled step can "
                'repeat on the way back: use strategy="vmap" (--strategy vmap)'
            )
    last, outputs = graph.output_node(), []
    with graph.inserting_before(last):
        for node in last.args[0]:  # each in memory of its own
            own = node.op != "placeholder" and node not in outputs
            outputs.append(node if own else graph.call_function(torch.ops.aten.clone.default, (node,)))
    last.args = (outputs,)
    module.recompile()
    return module


def compiled(graph: GraphModule, inputs: Sequence[Tensor]) -> Callable[..., Sequence[Tensor]]:
    """The same function, compiled for such inputs.

    Raises:
        CannotCompile: it failed.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_root() / "compiled"))
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, of its own parts
            import torch._inductor as inductor  # seconds, which only those pay who compile

            return inductor.compile(graph, [v.detach() for v in inputs])
    except Exception as error:  # of any kind: a compiler's, torch's, the disk's
        raise CannotCompile(str(error).partition("\n")[0]) from error


class CannotCompile(UserError):
    """This machine cannot compile, or not this."""


def available(device: torch.device) -> bool:
    """Whether a compiler for this device is here: of C++, and on a GPU Triton."""
    if device.type == "cuda":
        return find_spec("triton") is not None
    named = os.environ.get("CXX", "").split()[:1]
    return any(shutil.which(name) for name in (*named, "g++", "clang++", "c++"))


def check_available(device: torch.device) -> None:
    """Refuse to compile where no compiler is here.

    Raises:
        CannotCompile: none is.
    """
    if not available(device):
        name = "Triton" if device.type == "cuda" else "C++ compiler (g++, clang++)"
        raise CannotCompile(f"no {name} is here")
