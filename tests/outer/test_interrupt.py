from __future__ import annotations

import os
import signal
import threading

import pytest

from quickstudy.outer.interrupt import interrupted_between


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_is_held_back_until_it_is_asked_for() -> None:
    passed: list[str] = []

    def work() -> None:
        with interrupted_between() as here:
            here()
            press()
            passed.append("after the signal")
            here()
            passed.append("never")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert passed == ["after the signal"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_or_until_the_end() -> None:
    passed: list[str] = []

    def work() -> None:
        with interrupted_between():
            press()
            passed.append("after the signal")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert passed == ["after the signal"]


def test_the_second_is_not() -> None:
    passed: list[str] = []

    def work() -> None:
        with interrupted_between():
            press()
            passed.append("after the first")
            press()
            passed.append("never")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert passed == ["after the first"]


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
