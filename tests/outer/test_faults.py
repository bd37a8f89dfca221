"""A run that is stopped, killed or broken at any moment ends, after `--resume`, as if it had never been."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from quickstudy.app.cli import main
from quickstudy.errors import RunError
from quickstudy.outer.config import TrainConfig
from quickstudy.outer.session import train

Quick = Callable[..., TrainConfig]
Outcome = Callable[[Path], dict[str, Any]]
DISK = ("write", "fsync", "replace")


def faulty_disk(fail_at: int | None, fault: Callable[[], None]) -> SimpleNamespace:
    """The module `os`, but for the `fail_at`-th write, fsync or rename, before which `fault` is called.

    A write that fails has written half of its bytes. `calls` counts.
    """
    disk = SimpleNamespace(**vars(os), calls=0)

    def wrapped(name: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            disk.calls += 1
            if disk.calls == fail_at:
                if name == "write":
                    os.write(args[0], bytes(args[1])[: len(args[1]) // 2])
                fault()
            return getattr(os, name)(*args)

        return call

    for name in DISK:
        setattr(disk, name, wrapped(name))
    return disk


def full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def death() -> None:
    os._exit(77)


@pytest.fixture
def disk_calls(quick: Quick, every_step: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many writes, fsyncs and renames a whole run makes."""
    disk = faulty_disk(None, full)
    with monkeypatch.context() as patch:
        patch.setattr("quickstudy.files.os", disk)
        train(quick(iterations=4), tmp_path / "unbroken")
    assert disk.calls > 30
    return disk.calls


def test_a_full_disk_at_every_write_fsync_and_rename(
    quick: Quick, disk_calls: int, tmp_path: Path, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = outcome(tmp_path / "unbroken")
    for n in range(1, disk_calls + 1):
        out = tmp_path / str(n)
        with monkeypatch.context() as patch:
            patch.setattr("quickstudy.files.os", faulty_disk(n, full))
            with pytest.raises(RunError, match=r"cannot write .*: No space left on device"):
                train(quick(iterations=4), out)
        assert not list(out.glob("*.tmp"))
        train(quick(iterations=4), out, resume=True)
        assert outcome(out) == expected, f"disk call {n}"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_death_at_every_write_fsync_and_rename(
    quick: Quick, disk_calls: int, tmp_path: Path, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = outcome(tmp_path / "unbroken")
    for n in range(1, disk_calls + 1):
        out = tmp_path / str(n)
        child = os.fork()
        if child == 0:
            try:
                monkeypatch.setattr("quickstudy.files.os", faulty_disk(n, death))
                train(quick(iterations=4), out)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 77
        train(quick(iterations=4), out, resume=True)
        assert outcome(out) == expected, f"disk call {n}"


def test_a_finished_run_whose_curve_was_half_drawn(quick: Quick, tmp_path: Path, outcome: Outcome) -> None:
    train(quick(iterations=4), tmp_path / "run")
    expected = outcome(tmp_path / "run")
    (tmp_path / "run" / "curve.png.123.tmp").write_bytes(b"half")
    train(quick(iterations=4), tmp_path / "run", resume=True)
    assert outcome(tmp_path / "run") == expected


def test_interruption_at_any_line(quick: Quick, tmp_path: Path, outcome: Outcome) -> None:
    """Ctrl-C raises KeyboardInterrupt between any two lines, also in the middle of a meta-step."""
    config = quick(iterations=3)
    train(config, tmp_path / "unbroken")
    expected = outcome(tmp_path / "unbroken")
    files = {sys.modules[f"quickstudy.outer.{room}"].__file__ for room in ("meta_train", "checkpoint")}
    for n in range(1, 5000, 7):
        lines = 0

        def trace(frame: FrameType, event: str, arg: object, n: int = n) -> Any:
            nonlocal lines
            if frame.f_code.co_filename not in files:
                return None
            lines += event == "line"
            if lines == n:
                lines += 1
                raise KeyboardInterrupt
            return trace

        out = tmp_path / str(n)
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            train(config, out)
            break  # fewer lines than that
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        train(config, out, resume=True)
        assert outcome(out) == expected, f"line event {n}"
    assert n > 200


OPTIONS = (
    "train --data digits --learner maml --way 3 --query 2 --iterations 100 --meta-batch 2 --body mlp "
    "--size 8 --channels 4 --validate-every 10 --validation-tasks 3 --threads 1 --schedule cosine --steps 1 "
    "--clip 1 --resume --strategy loop --out"
)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize(
    ("kill", "code", "seed", "kills"),
    [
        (signal.SIGKILL, -9, 9, 6),
        (signal.SIGINT, 130, 2, 6),
        *(pytest.param(signal.SIGKILL, -9, seed, 20, marks=pytest.mark.slow) for seed in range(100, 105)),
    ],
)
def test_a_process_killed_at_random(
    kill: signal.Signals,
    code: int,
    seed: int,
    kills: int,
    every_step: None,
    tmp_path: Path,
    outcome: Outcome,
) -> None:
    """Real processes; forked, since Python and torch take seconds to start."""

    def begin(name: str) -> int:
        child = os.fork()
        if child == 0:
            os._exit(main([*OPTIONS.split(), str(tmp_path / name)]))
        return child

    main([*OPTIONS.split(), str(tmp_path / "first")])  # what is slow only once is over
    begun = time.monotonic()
    assert os.waitpid(begin("unbroken"), 0)[1] == 0
    duration = time.monotonic() - begun
    stops = 0
    for share in np.random.default_rng(seed).uniform(0.1, 0.6, 4 * kills):
        child = begin("killed")
        time.sleep(share * duration)
        os.kill(child, kill)
        exit_code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert exit_code in (0, code)
        stops += exit_code == code
        if stops == kills or (exit_code == 0 and stops > 1):
            break
        if exit_code == 0:  # the unbroken run was slower than this one: sooner, from the start
            duration, stops = duration / 2, 0
            shutil.rmtree(tmp_path / "killed")
    assert stops > 1
    assert main([*OPTIONS.split(), str(tmp_path / "killed")]) == 0
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "unbroken")
