"""Outputs whose way back is written by hand, also within a map over tasks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Protocol

import torch
from torch import Tensor

from quickstudy.errors import UserError
from quickstudy.inner.precision import computing_in, precision_now

Dims = Sequence[int | None]
"""Of each tensor the dimension of tasks: 0, or None where all tasks share it."""


class WayBack(Protocol):
    """From the adjoints of the outputs to those of the inputs.

    Args:
        inputs: what the outputs depend on.
        kept: what else was kept for the way back.
        wanted: of which inputs the adjoint is asked for.
        adjoint: the outputs' adjoints; within a map each has a dimension of tasks.
        dims: of the inputs and of what was kept; None outside of a map.

    Returns:
        An adjoint for each input, summed over tasks where all share it; anything where it is not wanted.
    """

    def __call__(
        self,
        inputs: Sequence[Tensor],
        kept: Sequence[Tensor],
        wanted: Sequence[bool],
        adjoint: Sequence[Tensor],
        dims: tuple[Dims, Dims] | None,
    ) -> Sequence[Tensor | None]: ...


def attached(
    back: WayBack, inputs: Sequence[Tensor], kept: Sequence[Tensor], outputs: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """The outputs, in a graph in which `back` leads from them to the inputs, in the precision of now, and in
    the autocast that is at work now.

    >>> w = torch.tensor(3.0, requires_grad=True)
    >>> double = lambda inputs, kept, wanted, adjoint, dims: [2 * adjoint[0]]
    >>> (y,) = attached(double, [w], [], [torch.tensor(6.0)])
    >>> torch.autograd.grad(y, w)
    (tensor(2.),)
    """
    precision = precision_now()
    kinds = {v.device.type for v in outputs}
    casts = [(kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)) for kind in kinds]

    def as_there(*given: Any) -> Sequence[Tensor | None]:
        # Blocks around the way there may have ended; and on a GPU the way back is in a thread of torch's.
        with computing_in(precision), ExitStack() as stack:
            for cast in casts:
                stack.enter_context(torch.autocast(*cast))
            return back(*given)

    return _Attached.apply(as_there, (len(inputs), len(kept)), None, *inputs, *kept, *outputs)


class _Attached(torch.autograd.Function):
    @staticmethod
    def forward(
        back: WayBack, sizes: tuple[int, int], dims: Dims | None, *operands: Tensor
    ) -> tuple[Tensor, ...]:
        return tuple(v.clone() for v in operands[sum(sizes) :])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.back, ctx.sizes, ctx.dims, *operands = inputs
        ctx.save_for_backward(*operands[: sum(ctx.sizes)])
        ctx.mark_non_differentiable(*(v for v in output if not v.is_floating_point()))

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, back: WayBack, sizes: tuple[int, int], dims: Dims | None, *operands: Tensor
    ) -> Any:
        if dims is not None:
            raise UserError("this gradient is for one map over tasks, not for a map within a map")
        moved = [v if d is None else v.movedim(d, 0) for v, d in zip(operands, in_dims[3:], strict=True)]
        for i in range(sum(sizes), len(moved)):
            if in_dims[3 + i] is None:
                moved[i] = moved[i].expand(info.batch_size, *moved[i].shape)
        dims = [None if d is None else 0 for d in in_dims[3 : 3 + sum(sizes)]]
        out = _Attached.apply(back, sizes, dims, *moved)
        return out, (0,) * len(out)

    @staticmethod
    def backward(ctx: Any, *adjoint: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # torch's once_differentiable would let a caller have zeros instead
            raise UserError(
                "flat memory and the implicit way can be differentiated once: for a gradient of their "
                "gradient (create_graph=True) use the unrolled one"
            )
        n, saved, wanted = ctx.sizes[0], ctx.saved_tensors, ctx.needs_input_grad[3:]
        dims = None if ctx.dims is None else (ctx.dims[:n], ctx.dims[n:])
        found = ctx.back(saved[:n], saved[n:], wanted[:n], adjoint, dims)
        nothing = [None] * (len(wanted) - n)
        return (None, None, None, *found, *nothing)
