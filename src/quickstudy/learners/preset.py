"""A method that is another method with other defaults."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partialmethod
from typing import Any, TypeVar

from quickstudy.learners.base import Learner

Kind = TypeVar("Kind", bound=type[Learner])


def preset(**defaults: Any) -> Callable[[Kind], Kind]:
    """A decorator: the class takes its parent's arguments, with these defaults.

    Raises:
        TypeError: the parent has no such argument.

    >>> from quickstudy.learners.maml import MAML
    >>> @preset(steps=7)
    ... class Longer(MAML):
    ...     pass
    >>> inspect.signature(Longer).parameters["steps"].default
    7
    """

    def decorate(kind: Kind) -> Kind:
        unknown = set(defaults) - set(inspect.signature(kind).parameters)
        if unknown:
            raise TypeError(f"{kind.__name__} has no argument {', '.join(sorted(unknown))}")
        setattr(kind, "__init__", partialmethod(kind.__init__, **defaults))  # noqa: B010
        return kind

    return decorate
