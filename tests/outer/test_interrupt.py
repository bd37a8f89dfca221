from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

import pytest

from quickstudy.outer.interrupt import interrupted_between


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("between", ["ask", "end", "press"])
def test_the_first_is_held_back_until_asked_for_or_the_end_or_a_second(between: str) -> None:
    passed: list[str] = []

    def work() -> None:
        with interrupted_between() as here:
            here()
            press()
            passed.append("after the signal")
            acts: dict[str, Callable[[], None]] = {"ask": here, "press": press, "end": lambda: None}
            acts[between]()
            passed.append("after the next")
        passed.append("never")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert passed == ["after the signal", "after the next"][: 2 if between == "end" else 1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_handlers_and_threads_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        with interrupted_between():
            press()
        assert seen == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def elsewhere() -> None:
        with interrupted_between() as here:
            here()
        seen.append(0)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [signal.SIGINT, 0]
