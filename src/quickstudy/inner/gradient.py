"""The gradient of a task's loss, by torch.autograd: of one task, or inside a map of all tasks at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from quickstudy.errors import UserError
from quickstudy.inner.below import below, inside_map
from quickstudy.inner.once import once_explained, refuse_once_differentiable
from quickstudy.inner.rules import Params
from quickstudy.inner.twice import twice_differentiable


@once_explained()
def gradient(loss: Callable[[Params], Tensor], params: Params, create_graph: bool) -> tuple[Tensor, Params]:
    """The value of `loss` at `params`, and its gradient.

    Inside a map the sum of all tasks' losses is differentiated: as each parameter is one task's own, that is
    the gradient of each.

    Args:
        loss: a function of the parameters, to a scalar.
        create_graph: whether the gradient itself can be differentiated (second order).

    Returns:
        (loss, gradient); the gradient is zero where a parameter has no influence, never None.

    Raises:
        UserError: the loss is no tensor of one number, or not computed from any of the parameters; or it is
            to be differentiated again, and uses what cannot be: see `once.py`.

    >>> gradient(lambda p: p["w"] ** 2, {"w": torch.tensor(3.0)}, create_graph=False)
    (tensor(9.), {'w': tensor(6.)})
    """
    tasks = below()
    with twice_differentiable(inside_map()) if create_graph else nullcontext(), torch.enable_grad():
        with tasks.outside_vmap():
            leaves = {k: _leaf(tasks.unwrapped(p), create_graph) for k, p in params.items()}
        value = loss({k: tasks.wrapped(p) for k, p in leaves.items()})
        if not isinstance(value, Tensor):
            raise UserError(f"a support loss is a tensor of one number, not {value!r}")
        if value.is_complex():
            raise UserError(f"a support loss is a real number, not one of {value.dtype}")
        if value.ndim:
            raise UserError(f"a support loss is one number, not a tensor of shape {tuple(value.shape)}")
        with tasks.outside_vmap():
            total = tasks.unwrapped(value).sum()
            if create_graph:
                refuse_once_differentiable(total, leaves.values())
            found: Sequence[Tensor | None] = [None] * len(leaves)
            if total.requires_grad:
                found = torch.autograd.grad(
                    total, list(leaves.values()), create_graph=create_graph, allow_unused=True
                )
            if all(g is None for g in found):
                raise UserError(
                    "the support loss is not computed from the parameters it is given, so that nothing would "
                    "adapt: call the net with them (quickstudy.learners.call, torch.func.functional_call)"
                )
            # Not torch's own zeros, which would be leaves of the graph.
            pairs = zip(leaves.values(), found, strict=True)
            grads = [torch.zeros_like(p) if g is None else g for p, g in pairs]
    each = {k: tasks.wrapped(g) for k, g in zip(params, grads, strict=True)}
    return value if create_graph else value.detach(), each


def _leaf(p: Tensor, create_graph: bool) -> Tensor:
    """A parameter to differentiate by."""
    if create_graph and p.requires_grad:
        return p.view_as(p)  # one parameter may be computed from another: only the direct influence counts
    return p.detach().requires_grad_()
