"""The inner loop: descend a task's loss for some steps, differentiably."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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


def take_step(
    problem: InnerProblem, params: Params, state: Any, step: int, create_graph: bool
) -> tuple[Tensor, Params, Any]:
    """One step of the rule: (the loss before it, parameters and state after it).

    Args:
        create_graph: whether the gradient itself can be differentiated (second order).
    """
    loss, grads = gradient(lambda p: problem.loss(p, step), params, create_graph)
    updates, state = problem.rule.update(grads, state, params)
    return loss.detach(), {k: p + updates[k] for k, p in params.items()}, state


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
        loss, params, state = take_step(problem, params, state, step, second_order)
        losses.append(loss)
    return Solution(params, tuple(losses))
