"""What the commands say beside their results."""

from __future__ import annotations

import sys

from quickstudy.outer.distributed import world


def announce(text: str) -> None:
    """A line on standard error, of many processes from the first; standard output is for results."""
    if world().leads:
        print(text, file=sys.stderr)
