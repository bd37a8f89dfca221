"""First order, and truncation: second derivatives in the last steps only.

First order (Finn et al. 2017, 1703.03400, section 5.2) takes each inner gradient for a constant, so that the
meta-gradient of the start is that of the end, where nothing else than gradients moves the parameters.
Truncated does so in all steps but the last k: exact with k = S, first order with k = 0. Shaban et al. (2019,
1810.10667) drop what goes further back altogether; here it goes on to the start, as in first order.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from quickstudy.errors import UserError
from quickstudy.inner.problem import InnerProblem, Solution
from quickstudy.inner.unrolled import unrolled
from quickstudy.options import at_least_zero


def first_order(problem: InnerProblem) -> Solution:
    """Take all steps, no gradient of which carries a meta-gradient; memory does not grow with the steps,
    but for the gradients themselves where the rule learns a rate.

    >>> import torch
    >>> from quickstudy.inner.rules import sgd
    >>> start = {"w": torch.tensor(4.0, requires_grad=True)}
    >>> half = InnerProblem(start, lambda p, step: 0.5 * p["w"] ** 2, sgd(0.5), steps=2)
    >>> torch.autograd.grad(first_order(half).params["w"], start["w"])
    (tensor(1.),)
    """
    return unrolled(problem, exact=0)


def truncated(k: int) -> Callable[[InnerProblem], Solution]:
    """A method that is exact in the last k steps, and of first order before; memory holds k graphs.

    Raises:
        UserError: k is no whole number of at least 0.

    >>> import torch
    >>> from quickstudy.inner.rules import sgd
    >>> start = {"w": torch.tensor(4.0, requires_grad=True)}
    >>> half = InnerProblem(start, lambda p, step: 0.5 * p["w"] ** 2, sgd(0.5), steps=2)
    >>> torch.autograd.grad(truncated(1)(half).params["w"], start["w"])
    (tensor(0.5000),)
    """
    if isinstance(k, InnerProblem):
        raise UserError("truncated makes a method: give truncated(k), such as truncated(1)")
    at_least_zero(whole=True, k=k)
    return partial(_truncated, k=k)


def _truncated(problem: InnerProblem, *, k: int) -> Solution:
    return unrolled(problem, exact=min(k, problem.steps))
