"""Ctrl-C between meta-steps, not within one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupted_between() -> Iterator[Callable[[], None]]:
    """Within this block Ctrl-C is held back until the function that is given is called, or the block ends; a
    second one is not.

    Torch swaps a net's weights while it maps over tasks; an interruption just then would leave them swapped.
    Threads other than the main one are sent no signals: there nothing is changed.

    >>> with interrupted_between() as here:
    ...     here()
    """
    came = False

    def hold(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if came:
            raise KeyboardInterrupt
        came = True

    def here() -> None:
        if came:
            raise KeyboardInterrupt

    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield here  # whoever handles it in another way goes on doing so
        return
    signal.signal(signal.SIGINT, hold)
    try:
        yield here
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    here()  # one that came after the last call is not lost
