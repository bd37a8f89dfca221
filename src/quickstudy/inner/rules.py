"""Inner update rules: pairs of pure functions, `init(params)` and `update(grads, state, params)`.

The style is optax's. A rule returns *updates* to be added to the parameters, so that rates, moments and
learned optimisers are the same type, and everything a rule is made of can carry a meta-gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

from quickstudy.errors import UserError

Params = dict[str, Tensor]
"""Parameters, their gradients or updates, by name."""
Plain = float | Tensor | Mapping[str, Tensor | float]
"""A rate: one for all, or one for each parameter or layer; a tensor may be learned, and be one by element."""
Rate = Plain | Callable[[int], Plain]
"""A rate, or a schedule of it: a function of the inner step, from 0."""


class Rule(NamedTuple):
    """`init(params) -> state` and `update(grads, state, params) -> (updates, state)`."""

    init: Callable[[Params], Any]
    update: Callable[[Params, Any, Params], tuple[Params, Any]]


def check_rule(rule: object) -> None:
    """Refuse what is no rule.

    Raises:
        UserError: it has no `init` and `update`.
    """
    if isinstance(rule, type) or not all(callable(getattr(rule, k, None)) for k in ("init", "update")):
        raise UserError(f"a rule is what sgd(…) or adam(…) make, with init and update, not {rule!r}")


def rate_of(lr: Plain, name: str) -> float | Tensor:
    """The rate of a parameter: its own, that of the nearest layer it is in, or the one for all.

    Raises:
        UserError: a rate for each name, but none for this one.

    >>> rate_of({"body": 0.1, "body.0": 0.2}, "body.0.weight")
    0.2
    """
    if not isinstance(lr, Mapping):
        return lr
    place = name
    while place not in lr and place:
        place = place.rpartition(".")[0]
    if place not in lr:
        raise UserError(f"there is no rate for {name!r}: name it or the layer it is in, or '' for the rest")
    return lr[place]


def check(below: float = math.inf, **numbers: Any) -> None:
    """Refuse plain numbers that are not from 0 up to `below`; what is learned or scheduled may be any.

    Raises:
        UserError: one is not, or is no number.
    """
    for name, value in numbers.items():
        if isinstance(value, Mapping):
            check(below, **{f"{name}[{k!r}]": v for k, v in value.items()})
            continue
        odd = value is None or isinstance(value, (bool, Sequence))
        if odd or (isinstance(value, Real) and not 0 <= float(value) < below):
            most = f" and below {below:g}" if below < math.inf else ""
            raise UserError(f"{name} must be a number of at least 0{most}, not {value!r}")


def scheduled(make: Callable[[Plain], Rule], lr: Callable[[int], Plain]) -> Rule:
    """The rule that `make` makes of the rate at each step, which counts the steps in its state.

    Raises:
        UserError: what is no rule's function or no schedule.

    >>> rule = scheduled(sgd, lambda step: 0.5**step)
    >>> params, grads = {"w": torch.zeros(1)}, {"w": torch.ones(1)}
    >>> first, state = rule.update(grads, rule.init(params), params)
    >>> first, rule.update(grads, state, params)[0]
    ({'w': tensor([-1.])}, {'w': tensor([-0.5000])})
    """
    if not callable(make) or not callable(lr):
        raise UserError(f"scheduled takes a rule's function and a schedule, not {make!r} and {lr!r}")

    def update(grads: Params, state: tuple[int, Any], params: Params) -> tuple[Params, tuple[int, Any]]:
        step, inner = state
        updates, inner = make(lr(step)).update(grads, inner, params)
        return updates, (step + 1, inner)

    return Rule(lambda params: (0, make(lr(0)).init(params)), update)


def sgd(lr: Rate) -> Rule:
    """Gradient descent, θ ← θ − lr · g. With a learned rate for each element of θ it is Meta-SGD's
    (Li et al. 2017, 1707.09835).

    Raises:
        UserError: a rate that is below 0 or no number.

    >>> rule, params = sgd(0.5), {"w": torch.tensor([2.0])}
    >>> rule.update({"w": torch.tensor([1.0])}, rule.init(params), params)[0]
    {'w': tensor([-0.5000])}
    """
    check(lr=lr)
    if callable(lr):
        return scheduled(sgd, lr)

    def update(grads: Params, state: tuple[()], params: Params) -> tuple[Params, tuple[()]]:
        return {k: -rate_of(lr, k) * g for k, g in grads.items()}, state

    return Rule(lambda params: (), update)


def momentum(lr: Rate, decay: float = 0.9, *, nesterov: bool = False) -> Rule:
    """Heavy-ball momentum as torch.optim.SGD's: v ← decay · v + g, θ ← θ − lr · v.

    Nesterov's is θ ← θ − lr · (g + decay · v), with the new v (Sutskever et al. 2013).

    Raises:
        UserError: a rate or decay below 0, a decay of 1 or more, or what is no number.

    >>> rule, params, grads = momentum(0.5, decay=0.5), {"w": torch.zeros(1)}, {"w": torch.ones(1)}
    >>> first, state = rule.update(grads, rule.init(params), params)
    >>> first, rule.update(grads, state, params)[0]
    ({'w': tensor([-0.5000])}, {'w': tensor([-0.7500])})
    """
    check(lr=lr)
    check(1, decay=decay)
    if callable(lr):
        return scheduled(partial(momentum, decay=decay, nesterov=nesterov), lr)

    def update(grads: Params, state: Params, params: Params) -> tuple[Params, Params]:
        state = {k: decay * state[k] + g for k, g in grads.items()}
        ahead = {k: g + decay * state[k] for k, g in grads.items()} if nesterov else state
        return {k: -rate_of(lr, k) * v for k, v in ahead.items()}, state

    return Rule(lambda params: {k: torch.zeros_like(p) for k, p in params.items()}, update)


class AdamState(NamedTuple):
    """Steps taken and the first two moments of the gradient."""

    step: int
    m: Params
    v: Params


def adam(lr: Rate = 1e-3, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Rule:
    """Adam (Kingma and Ba 2015, 1412.6980), with finite meta-gradients where a gradient is zero.

    A parameter whose gradients have all been zero, as behind a dead ReLU, stays where it is whatever it is.
    (By the letter a step `g / (|g| + ε)` has the slope 1/ε there, and some steps the slope of a power of it.)

    Raises:
        UserError: a rate, a decay or ε below 0, a decay of 1 or more, or what is no number.

    >>> rule, params = adam(0.1), {"w": torch.zeros(2)}
    >>> rule.update({"w": torch.tensor([3.0, -0.2])}, rule.init(params), params)[0]
    {'w': tensor([-0.1000,  0.1000])}
    """
    check(lr=lr, eps=eps)
    check(1, b1=b1, b2=b2)
    if callable(lr):
        return scheduled(partial(adam, b1=b1, b2=b2, eps=eps), lr)

    def init(params: Params) -> AdamState:
        zeros = {k: torch.zeros_like(p) for k, p in params.items()}
        return AdamState(0, zeros, zeros)

    def update(grads: Params, state: AdamState, params: Params) -> tuple[Params, AdamState]:
        t = state.step + 1
        m = {k: b1 * state.m[k] + (1 - b1) * g for k, g in grads.items()}
        v = {k: b2 * state.v[k] + (1 - b2) * g * g for k, g in grads.items()}

        def step(k: str) -> Tensor:
            # The square root has no derivative at 0: take it of 1 there, and drop what comes of it.
            zero = v[k] == 0
            root = torch.where(zero, 1.0, v[k] / (1 - b2**t)).sqrt()
            return torch.where(zero, 0.0, -rate_of(lr, k) * (m[k] / (1 - b1**t)) / (root + eps))

        return {k: step(k) for k in grads}, AdamState(t, m, v)

    return Rule(init, update)
