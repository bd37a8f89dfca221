"""What an inner loop is asked for, one step of it, and what it comes to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from quickstudy.errors import UserError
from quickstudy.inner.gradient import gradient
from quickstudy.inner.rules import Params, Rule, check_rule
from quickstudy.options import at_least_zero


@dataclass(frozen=True, eq=False)
class InnerProblem:
    """What a task asks of a learner that descends.

    Args:
        params: where to start, by name; these carry the meta-gradient.
        loss: the support loss at some parameters and inner step.
        rule: how a gradient becomes an update.
        steps: S, how many.

    Raises:
        UserError: no parameters or what cannot be moved, a loss or a rule that is none, or steps that are no
            number of at least 0.
    """

    params: Params
    loss: Callable[[Params, int], Tensor]
    rule: Rule
    steps: int

    def __post_init__(self) -> None:
        check_rule(self.rule)
        if not callable(self.loss):
            raise UserError(f"the support loss is a function of parameters and step, not {self.loss!r}")
        at_least_zero(whole=True, steps=self.steps)
        if not isinstance(self.params, Mapping) or not self.params:
            raise UserError(f"an inner loop needs parameters to move, tensors by name, not {self.params!r}")
        for name, p in self.params.items():
            if not isinstance(p, Tensor) or not p.is_floating_point():
                kind = f"of {p.dtype}" if isinstance(p, Tensor) else f"a {type(p).__name__}"
                raise UserError(f"an inner loop moves tensors of real numbers; {name} is {kind}")


@dataclass(frozen=True, eq=False)
class Solution:
    """The adapted parameters and the support loss before each step `[S]`."""

    params: Params
    losses: tuple[Tensor, ...]


TakeStep = Callable[["InnerProblem", Params, Any, int, bool], tuple[Tensor, Params, Any]]
_instead: ContextVar[TakeStep | None] = ContextVar("how steps are taken", default=None)


@contextmanager
def taking_steps(by: TakeStep | None) -> Iterator[None]:
    """Within this block steps are taken by another function; None for `take_step` itself."""
    token = _instead.set(by)
    try:
        yield
    finally:
        _instead.reset(token)


def steps_apart() -> bool:
    """Whether each step has a way back of its own, which keeps no graph of it."""
    return _instead.get() is not None


def take_step(
    problem: InnerProblem, params: Params, state: Any, step: int, create_graph: bool
) -> tuple[Tensor, Params, Any]:
    """One step of the rule: (the loss before it, parameters and state after it).

    Args:
        create_graph: whether the gradient itself can be differentiated (second order).

    Raises:
        UserError: see `gradient`; or the rule makes no update of each parameter.
    """
    instead = _instead.get()
    if instead is not None:
        return instead(problem, params, state, step, create_graph)
    loss, grads = gradient(lambda p: problem.loss(p, step), params, create_graph)
    made = problem.rule.update(grads, state, params)
    if not isinstance(made, tuple) or len(made) != 2 or getattr(made[0], "keys", set)() != params.keys():
        raise UserError("a rule's update makes (an update for each parameter by name, its state)")
    updates, state = made
    return loss.detach(), {k: moved(k, p, updates[k]) for k, p in params.items()}, state


def moved(name: str, p: Tensor, update: Tensor) -> Tensor:
    """A parameter after its update, of the same shape and precision.

    Raises:
        UserError: the update is of another shape, as by a rate of one.
    """
    after = p + update
    if after.shape != p.shape:
        raise UserError(f"the rule moves {name}, of shape {tuple(p.shape)}, to one of {tuple(after.shape)}")
    return after.to(p.dtype)
