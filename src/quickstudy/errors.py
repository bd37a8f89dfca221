"""The errors a user can cause. The command line prints one as a single line and exits with 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Something in the input is wrong; the message names the thing and says what to do."""


class DataError(UserError):
    """A file, folder or array that cannot be used as data."""


class TaskError(UserError):
    """More ways, shots or queries than there are, or fewer than none."""


class RunError(UserError):
    """A run folder that is missing, damaged, of another version, or in the way."""


class NonFiniteError(UserError):
    """The outer loss, or the meta-gradient, stopped being a finite number."""


class ProcessError(UserError):
    """Another process of the same run ended before its work was done."""


def in_brief(error: Exception) -> str:
    """An error's first 40 words, in one line.

    >>> in_brief(ValueError("a table of\\n\\tmany lines"))
    'a table of many lines'
    """
    return " ".join(str(error).split()[:40])


def unknown(kind: str, given: str, known: Iterable[str]) -> UserError:
    """The error for a name that nothing goes by, with the nearest one that something does.

    >>> str(unknown("learner", "mamll", ["maml", "protonet"]))
    "unknown learner 'mamll': did you mean 'maml'? (known: maml, protonet)"
    """
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f": did you mean {near[0]!r}?" if near else ""
    return UserError(f"unknown {kind} {given!r}{hint} (known: {', '.join(names)})")
