"""What the commands say beside their results."""

from __future__ import annotations

import sys


def announce(text: str) -> None:
    """A line on standard error; standard output is for results."""
    print(text, file=sys.stderr)
