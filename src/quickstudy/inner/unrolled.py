"""The inner loop unrolled: the way back goes through the graph of every step (Finn et al. 2017, 1703.03400).

Memory grows with the steps, S graphs of one step each; nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from quickstudy.inner.problem import InnerProblem, Solution, take_step
from quickstudy.inner.rules import Params


def unrolled(problem: InnerProblem, *, exact: int | None = None) -> Solution:
    """Take all steps; without gradient mode (in evaluation) no step's graph outlives the step.

    Args:
        exact: how many of the last steps carry second derivatives; in those before, as in first order, a
            gradient counts as a constant. By default all.

    >>> from quickstudy.inner.rules import sgd
    >>> start = {"w": torch.tensor(4.0, requires_grad=True)}
    >>> half = InnerProblem(start, lambda p, step: 0.5 * p["w"] ** 2, sgd(0.5), steps=2)
    >>> torch.autograd.grad(unrolled(half).params["w"], start["w"])
    (tensor(0.2500),)
    """
    params, losses = problem.params, []
    for loss, after in trajectory(problem, exact=exact):
        params = after
        losses.append(loss)
    return Solution(params, tuple(losses))


def trajectory(problem: InnerProblem, *, exact: int | None = None) -> Iterator[tuple[Tensor, Params]]:
    """Take all steps, as `unrolled` does: of each the loss before it and the parameters after it.

    Args:
        exact: how many of the last steps carry second derivatives, by default all.

    Raises:
        UserError: see `gradient`.

    >>> from quickstudy.inner.rules import sgd
    >>> half = InnerProblem({"w": torch.tensor(4.0)}, lambda p, step: 0.5 * p["w"] ** 2, sgd(0.5), steps=2)
    >>> [(loss.item(), params["w"].item()) for loss, params in trajectory(half)]
    [(8.0, 2.0), (2.0, 1.0)]
    """
    first = 0 if exact is None else problem.steps - exact
    params, state = problem.params, problem.rule.init(problem.params)
    for step in range(problem.steps):
        second_order = torch.is_grad_enabled() and step >= first
        loss, params, state = take_step(problem, params, state, step, second_order)
        yield loss, params
