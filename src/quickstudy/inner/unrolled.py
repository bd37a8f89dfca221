"""The inner loop unrolled: the way back goes through the graph of every step (Finn et al. 2017, 1703.03400).

Memory grows with the steps, S graphs of one step each; nothing is computed twice.
"""

from __future__ import annotations

import torch

from quickstudy.inner.problem import InnerProblem, Solution, take_step


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
    first = 0 if exact is None else problem.steps - exact
    params, state, losses = problem.params, problem.rule.init(problem.params), []
    for step in range(problem.steps):
        second_order = torch.is_grad_enabled() and step >= first
        loss, params, state = take_step(problem, params, state, step, second_order)
        losses.append(loss)
    return Solution(params, tuple(losses))
