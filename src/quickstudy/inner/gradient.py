"""The gradient of a task's loss, by torch.autograd in a loop over tasks and by torch.func inside a map."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar

import torch
from torch import Tensor

from quickstudy.inner.once import once_explained, once_refused, refuse_once_differentiable
from quickstudy.inner.rules import Params
from quickstudy.inner.twice import twice_differentiable

_inside_map: ContextVar[bool] = ContextVar("inside_map", default=False)


@contextmanager
def vectorised() -> Iterator[None]:
    """Mark the code that `torch.func.vmap` runs, where only `torch.func.grad` may differentiate."""
    token = _inside_map.set(True)
    try:
        yield
    finally:
        _inside_map.reset(token)


def inside_map() -> bool:
    """Whether `torch.func.vmap` runs this code."""
    return _inside_map.get()


@once_explained()
def gradient(loss: Callable[[Params], Tensor], params: Params, create_graph: bool) -> tuple[Tensor, Params]:
    """The value of `loss` at `params`, and its gradient.

    Args:
        loss: a function of the parameters, to a scalar.
        create_graph: whether the gradient itself can be differentiated (second order). Inside a map
            torch.func makes that graph all the same, and drops it before this returns.

    Returns:
        (loss, gradient); the gradient is zero where a parameter has no influence, never None.

    Raises:
        UserError: it is to be differentiated again, and the loss uses what cannot be: see `once.py`.
    """
    mapped = _inside_map.get()
    kernels = twice_differentiable(mapped) if create_graph else nullcontext()
    if mapped:
        with kernels, torch.set_grad_enabled(create_graph):  # torch.func.grad differentiates all the same
            grads, value = torch.func.grad_and_value(once_refused(loss) if create_graph else loss)(params)
        return value, grads
    with kernels, torch.enable_grad():
        if create_graph:
            # Views: one parameter may be computed from another, and only the direct influence counts.
            leaves = {
                k: p.view_as(p) if p.requires_grad else p.detach().requires_grad_() for k, p in params.items()
            }
        else:
            leaves = {k: p.detach().requires_grad_() for k, p in params.items()}
        value = loss(leaves)
        if create_graph:
            refuse_once_differentiable(value, leaves.values())
        found = torch.autograd.grad(
            value, list(leaves.values()), create_graph=create_graph, allow_unused=True
        )
    # Not torch's own zeros, which would be leaves of the graph.
    grads = {
        k: torch.zeros_like(p) if g is None else g for (k, p), g in zip(params.items(), found, strict=True)
    }
    return (value if create_graph else value.detach()), grads
