"""Solve an inner problem by a method: they all take the same steps, and differ in the way back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from quickstudy.errors import unknown
from quickstudy.inner.flat import flat
from quickstudy.inner.problem import InnerProblem, Solution
from quickstudy.inner.truncated import first_order
from quickstudy.inner.unrolled import unrolled

Method = Callable[[InnerProblem], Solution]
MethodName = Literal["unrolled", "flat", "first-order"]
METHODS: dict[str, Method] = {"unrolled": unrolled, "flat": flat, "first-order": first_order}


def solve(problem: InnerProblem, method: str | Method = "unrolled") -> Solution:
    """Take `problem.steps` steps of `problem.rule` from `problem.params`.

    Args:
        method: how a meta-gradient goes back through them: unrolled, flat, first-order, or a function such
            as `truncated(3)`.

    Raises:
        UserError: no method has that name.

    >>> import torch
    >>> from quickstudy.inner.rules import sgd
    >>> start = {"w": torch.tensor(4.0)}
    >>> half = InnerProblem(start, lambda p, step: 0.5 * p["w"] ** 2, sgd(0.5), steps=2)
    >>> solve(half).params["w"].item()
    1.0
    """
    if callable(method):
        return method(problem)
    if not isinstance(method, str) or method not in METHODS:
        raise unknown("method", str(method), METHODS)
    return METHODS[method](problem)
