"""What can be differentiated once only is told, with what to use instead.

A kernel of torch without a second derivative stops the way back with an error of torch's. A
`torch.autograd.Function` marked `once_differentiable` may stop nothing: its gradient then counts as a
constant, and the meta-gradient is wrong without a word. So such a function is looked for in the loss's graph.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.autograd.function import BackwardCFunction, Function, once_differentiable
from torch.autograd.graph import get_gradient_edge

from quickstudy.errors import UserError

INSTEAD = "--gradient first-order (gradient='first-order') does without"
MARK = once_differentiable(lambda ctx: None).__code__
COMPILED = re.compile(r"torch\.compile with aot_autograd does not currently support double backward")
ABSENT = re.compile(r"derivative for '?(?:aten::)?(\w+)'? is not implemented")
RECURRENT = re.compile(r"_cudnn_rnn|cudnn RNN")
RECURRENT_HERE = re.compile(r"mkldnn_rnn|argument #\d+ 'workspace'")


@contextmanager
def once_explained() -> Iterator[None]:
    """Say of what torch cannot differentiate twice within this block what to use instead.

    Raises:
        UserError: such a kernel.
    """
    try:
        yield
    except RuntimeError as error:
        if RECURRENT.search(str(error)):
            raise UserError(
                "a recurrent layer on cuDNN has no second derivative, and none at all in evaluation: call it "
                "within torch.backends.cudnn.flags(enabled=False) in the net, or use GRUCell or LSTMCell"
            ) from error
        if RECURRENT_HERE.search(str(error)):
            raise UserError(
                "torch's LSTM on a processor has no derivative in torch.func, which this way back takes: use "
                "LSTMCell, or the gradient 'unrolled' or 'flat'"
            ) from error
        if "saved tensor hooks" in str(error):
            raise UserError(
                "torch.func, which this way back takes, knows nothing of saved-tensor hooks, as those of "
                "torch.utils.checkpoint: use the gradient 'flat', which saves that memory too, or 'unrolled'"
            ) from error
        if COMPILED.search(str(error)):
            raise UserError(
                "a net compiled by torch.compile has no second derivative, which the way back through an "
                "inner loop takes: give the net itself (--strategy compile compiles whole meta-steps); "
                f"{INSTEAD}"
            ) from error
        absent = ABSENT.search(str(error))
        if not absent:
            raise
        raise UserError(
            f"torch has no second derivative of {absent[1].strip('_').removesuffix('_backward')}, which the "
            f"way back through an inner loop takes: {INSTEAD}, or use another layer"
        ) from error


def refuse_once_differentiable(value: Tensor, leaves: Collection[Tensor] | None = None) -> None:
    """Refuse a value that is computed from its leaves by a function that can be differentiated only once.

    Args:
        leaves: what it is differentiated by; None for all that its graph ends in.

    Raises:
        UserError: there is one; the message names it.
    """
    start = {v.grad_fn for v in leaves or ()}
    marked = [node for node in _functions(value.grad_fn, start) if _marked(node)]  # seldom any
    ends = {get_gradient_edge(v).node for v in leaves or () if marked and v.requires_grad}
    for node in marked:
        if leaves is None or _reaches(node, ends):
            raise UserError(
                f"{_name(node)} is a "
                "torch.autograd.Function marked once_differentiable, but the way back through an inner loop "
                f"takes a second derivative: {INSTEAD}, or write its backward without that mark"
            )


def once_refused(loss: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
    """The same loss, for `torch.func.grad` to differentiate twice: see `refuse_once_differentiable`."""

    def checked(params: Any) -> Tensor:
        value = loss(params)
        refuse_once_differentiable(value)
        return value

    return checked


def _functions(start: Any, ends: Collection[Any]) -> list[Any]:
    """The nodes of a graph that are of a `Function`, those behind the ends left out; done at every step."""
    nodes, seen, found = [start], {None}, []
    while nodes:
        node = nodes.pop()
        if node in seen or node in ends:
            continue
        seen.add(node)
        if isinstance(node, BackwardCFunction):
            found.append(node)
        nodes += [following for following, _ in node.next_functions]
    return found


def _reaches(start: Any, ends: Collection[Any]) -> bool:
    nodes, seen = [start], {None}
    while nodes:
        node = nodes.pop()
        if node in ends:
            return True
        if node not in seen:
            seen.add(node)
            nodes += [following for following, _ in node.next_functions]
    return False


def _name(node: Any) -> str:
    """The `Function`'s, without what torch makes of it under a transform."""
    return type(node).__name__.removesuffix("Backward").removesuffix("Generated").removeprefix("Vmapped")


def _marked(node: Any) -> bool:
    """Whether a node is of a `Function` whose way back is marked, under other marks too."""
    kind = node._forward_cls
    # Within torch.func the node's class only calls that of the function, which its backward closes over.
    cells = [cell.cell_contents for cell in getattr(kind.backward, "__closure__", None) or ()]
    kinds = [v for v in cells if isinstance(v, type) and issubclass(v, Function)]
    return any(_bears_mark(v.backward) for v in (kind, *kinds))


def _bears_mark(back: Any) -> bool:
    while getattr(back, "__code__", None) is not MARK and hasattr(back, "__wrapped__"):
        back = back.__wrapped__
    return getattr(back, "__code__", None) is MARK
