"""Schedules: the rate of an update rule as a function of the inner step, from 0."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from torch import Tensor

from quickstudy.errors import UserError
from quickstudy.inner.rules import Plain, check
from quickstudy.options import at_least_zero


def linear(first: float | Tensor, last: float | Tensor, steps: int) -> Callable[[int], float | Tensor]:
    """From `first` to `last` in equal parts, reached after so many steps and then kept.

    Raises:
        UserError: a rate below 0, or steps that are no number of at least 0.

    >>> [linear(1.0, 0.0, 4)(step) for step in (0, 1, 4, 9)]
    [1.0, 0.75, 0.0, 0.0]
    """
    return _between(first, last, steps, lambda part: part)


def cosine(first: float | Tensor, last: float | Tensor, steps: int) -> Callable[[int], float | Tensor]:
    """From `first` to `last` by half a cosine wave (Loshchilov and Hutter 2017, 1608.03983), then kept.

    Raises:
        UserError: a rate below 0, or steps that are no number of at least 0.

    >>> [round(cosine(1.0, 0.0, 4)(step), 3) for step in (0, 1, 2, 4, 9)]
    [1.0, 0.854, 0.5, 0.0, 0.0]
    """
    return _between(first, last, steps, lambda part: (1 - math.cos(math.pi * part)) / 2)


def by_step(rates: Tensor | Mapping[str, Tensor]) -> Callable[[int], Plain]:
    """A rate for each step, `[S, …]`, or for each layer and step: what MAML++ learns (Antoniou, Edwards,
    Storkey 2019, 1810.09502, section 4). Steps beyond S take the last.

    Args:
        rates: one tensor `[S, …]`, or one for each parameter or layer, by name; "" for all others.

    Raises:
        UserError: a rate that is no tensor of at least one step's.

    >>> import torch
    >>> by_step({"body": torch.tensor([0.5, 0.25]), "head": torch.ones(2)})(1)
    {'body': tensor(0.2500), 'head': tensor(1.)}
    """
    for rate in rates.values() if isinstance(rates, Mapping) else [rates]:
        if not isinstance(rate, Tensor) or not rate.ndim or not len(rate):
            raise UserError(f"by_step takes tensors [S, …] of a rate for each step, not {rate!r}")

    def at(step: int) -> Plain:
        if isinstance(rates, Tensor):
            return rates[min(step, len(rates) - 1)]
        return {name: rate[min(step, len(rate) - 1)] for name, rate in rates.items()}

    return at


def _between(
    first: float | Tensor, last: float | Tensor, steps: int, share: Callable[[float], float]
) -> Callable[[int], float | Tensor]:
    at_least_zero(whole=True, steps=steps)
    check(first=first, last=last)
    return lambda step: first + (last - first) * (share(step / steps) if step < steps else 1.0)
