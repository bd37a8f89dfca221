"""Rules one after the other, and what may stand before one: clipping and weight decay.

Each takes what the one before it returns for the gradient, as in optax: `chain(clip_by_norm(1.0), sgd(0.1))`.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from quickstudy.errors import UserError
from quickstudy.inner.rules import Params, Plain, Rule, check, check_rule, rate_of


def chain(*rules: Rule) -> Rule:
    """One rule of several: the updates of each are the gradients of the next.

    Raises:
        UserError: one is no rule.

    >>> from quickstudy.inner.rules import sgd
    >>> rule, params = chain(clip_by_value(1.0), sgd(0.5)), {"w": torch.zeros(2)}
    >>> rule.update({"w": torch.tensor([-3.0, 0.2])}, rule.init(params), params)[0]
    {'w': tensor([ 0.5000, -0.1000])}
    """
    for rule in rules:
        check_rule(rule)

    def update(grads: Params, state: tuple[Any, ...], params: Params) -> tuple[Params, tuple[Any, ...]]:
        after = []
        for rule, before in zip(rules, state, strict=True):
            grads, now = rule.update(grads, before, params)
            after.append(now)
        return grads, tuple(after)

    return Rule(lambda params: tuple(rule.init(params) for rule in rules), update)


def clip_by_norm(most: float | Tensor) -> Rule:
    """Shorten gradients whose norm, over all parameters together, is above `most` (Pascanu et al. 2013,
    1211.5063); as torch's `clip_grad_norm_`: g · min(1, most / (‖g‖ + 10⁻⁶)).

    Raises:
        UserError: `most` is not above 0.

    >>> rule = clip_by_norm(1.0)
    >>> rule.update({"w": torch.tensor([3.0]), "b": torch.tensor([4.0])}, (), {})[0]
    {'w': tensor([0.6000]), 'b': tensor([0.8000])}
    """
    _above_zero(most)

    def clip(grads: Params, params: Params) -> Params:
        square = torch.stack([g.square().sum() for g in grads.values()]).sum()
        # The square root has no derivative at 0: take it of 1 there, whose derivative is then dropped.
        zero = square == 0
        norm = torch.where(zero, 0.0, torch.where(zero, 1.0, square).sqrt())
        scale = (most / (norm + 1e-6)).clamp(max=1.0)
        return {k: scale * g for k, g in grads.items()}

    return _stateless(clip)


def clip_by_value(most: float | Tensor) -> Rule:
    """Bring each element of a gradient into −most to most, as torch's `clip_grad_value_`.

    Raises:
        UserError: `most` is not above 0.

    >>> clip_by_value(1.0).update({"w": torch.tensor([-3.0, 0.2])}, (), {})[0]
    {'w': tensor([-1.0000,  0.2000])}
    """
    _above_zero(most)

    def clip(grads: Params, params: Params) -> Params:
        limits = {k: torch.as_tensor(most).to(g) for k, g in grads.items()}
        return {k: g.clamp(-limits[k], limits[k]) for k, g in grads.items()}

    return _stateless(clip)


def weight_decay(strength: Plain) -> Rule:
    """Add `strength` · θ to the gradient, as the weight decay of torch's SGD and Adam does; the strength may
    be learned, one for all, or by parameter or layer, as a rate.

    Raises:
        UserError: a strength that is below 0 or no number.

    >>> weight_decay(0.1).update({"w": torch.ones(1)}, (), {"w": torch.tensor([5.0])})[0]
    {'w': tensor([1.5000])}
    """
    check(strength=strength)
    if callable(strength):
        raise UserError(f"weight decay has one strength for all steps, not {strength!r}")
    return _stateless(
        lambda grads, params: {k: g + rate_of(strength, k) * params[k] for k, g in grads.items()}
    )


def _stateless(change: Callable[[Params, Params], Params]) -> Rule:
    return Rule(lambda params: (), lambda grads, state, params: (change(grads, params), state))


def _above_zero(most: float | Tensor) -> None:
    number = isinstance(most, Real) and not isinstance(most, bool) and float(most) > 0
    if not isinstance(most, Tensor) and not number:
        raise UserError(f"gradients are clipped at a number above 0, not {most!r}")
