"""The inner loop: descend a task's loss for some steps, differentiably."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from quickstudy.inner.gradient import gradient
from quickstudy.inner.rules import Params, Rule


@dataclass(frozen=True, eq=False)
class InnerProblem:
    """What a task asks of a learner that descends.

    Args:
        params: where to start, by name; these carry the meta-gradient.
        loss: the support loss at some parameters and inner step.
        rule: how a gradient becomes an update.
        steps: S, how many.
    """

    params: Params
    loss: Callable[[Params, int], Tensor]
    rule: Rule
    steps: int


@dataclass(frozen=True, eq=False)
class Solution:
    """The adapted parameters and the support loss before each step `[S]`."""

    params: Params
    losses: tuple[Tensor, ...]


def solve(problem: InnerProblem, *, first_order: bool = False) -> Solution:
    """Take `problem.steps` steps of `problem.rule` from `problem.params`.

    Args:
        first_order: treat each gradient as a constant of the meta-gradient. Then, and without gradient mode
            (in evaluation), no step's graph outlives the step: memory does not grow with the steps.

    >>> from quickstudy.inner.rules import sgd
    >>> start = {"w": torch.tensor(4.0)}
    >>> half = InnerProblem(start, lambda p, step: 0.5 * p["w"] ** 2, sgd(0.5), steps=2)
    >>> solve(half).params["w"].item()
    1.0
    """
    second_order = torch.is_grad_enabled() and not first_order
    params, state, losses = problem.params, problem.rule.init(problem.params), []
    for step in range(problem.steps):

        def loss_here(params: Params, step: int = step) -> Tensor:
            return problem.loss(params, step)

        loss, grads = gradient(loss_here, params, second_order)
        updates, state = problem.rule.update(grads, state, params)
        params = {k: p + updates[k] for k, p in params.items()}
        losses.append(loss.detach())
    return Solution(params, tuple(losses))
