"""Solve an inner problem by a method: they take the same steps, and differ in the way back; but the implicit
one also holds the parameters to the start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from quickstudy.errors import UserError, unknown
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
        UserError: no method has that name, or it is none.

    >>> import torch
    >>> from quickstudy.inner.rules import sgd
    >>> start = {"w": torch.tensor(4.0)}
    >>> half = InnerProblem(start, lambda p, step: 0.5 * p["w"] ** 2, sgd(0.5), steps=2)
    >>> solve(half).params["w"].item()
    1.0
    """
    if callable(method):
        found = method(problem)
        if not isinstance(found, Solution):
            made = type(found).__name__
            raise UserError(f"a method makes a Solution of an InnerProblem, but {method!r} made a {made}")
        return found
    if not isinstance(method, str) or method not in METHODS:
        raise unknown("method", str(method), METHODS)
    return METHODS[method](problem)
