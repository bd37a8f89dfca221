"""What options must be: refused by name, where they are not."""

from __future__ import annotations

import math
import numbers

from quickstudy.errors import UserError


def at_least_zero(*, whole: bool = False, **options: float | None) -> None:
    """Refuse an option that is no number, or below 0, or infinite; None is for the learner to say.

    Args:
        whole: whether only whole numbers will do.

    >>> at_least_zero(inner_lr=0.1, test_steps=None)
    """
    for name, value in options.items():
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, numbers.Integral if whole else numbers.Real):
            raise UserError(f"{name} must be a {'whole ' if whole else ''}number, not {value!r}")
        if not 0 <= value < math.inf:
            raise UserError(f"{name} must be at least 0 and finite, not {value}")


def above_zero(**options: float | None) -> None:
    """Refuse an option that is no number, or not above 0, or infinite; None is for others to say.

    >>> above_zero(temperature=0.1)
    """
    for name, value in options.items():
        if isinstance(value, numbers.Real) and not value > 0:
            raise UserError(f"{name} must be above 0, not {value}")
    at_least_zero(whole=False, **options)


def at_least_one(**options: int | None) -> None:
    """Refuse an option that is no whole number, or below 1; None is for the learner to say.

    >>> at_least_one(hidden=64)
    """
    for name, value in options.items():
        if isinstance(value, numbers.Real) and not value >= 1:
            raise UserError(f"{name} must be at least 1, not {value}")
    at_least_zero(whole=True, **options)
