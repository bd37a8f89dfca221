"""The display of meta-training writes to standard error only."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console
from rich.progress import Progress as RichProgress

from quickstudy.outer.progress import Bar, NoProgress, Progress, columns, display

RECORD = {
    "iteration": 20,
    "train_loss": 1.25,
    "train_accuracy": 0.5,
    "val_loss": 1.5,
    "val_accuracy": 0.4321,
    "val_verification": 0.8765,
    "val_accuracy_ci95": 0.0123,
}


def show(display: Progress) -> None:
    display.begin(100, 10)
    display.step(11, {"loss": 1.0, "accuracy": 0.5}, 4)
    display.validated(RECORD)
    display.end()


def test_a_bar_writes_to_standard_error_only(capsys: pytest.CaptureFixture[str]) -> None:
    show(Bar("maml on digits"))
    out, err = capsys.readouterr()
    assert out == ""
    line = next(line for line in err.splitlines() if "val" in line)
    expected = "20 train loss 1.250 train accuracy 0.500 val loss 1.500 val accuracy 0.432 ± 0.012 "
    expected += "val verification 0.876"
    assert " ".join(line.split()) == expected
    assert err.splitlines()[0] == "maml on digits: going on from meta-step 10 of 100"
    Bar("maml on digits").begin(100, 0)
    assert capsys.readouterr().err == "maml on digits\n"


def test_a_bar_fits_a_terminal_of_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar("maml on my[/red]pictures[bold]")
    screen = io.StringIO()
    bar.console = Console(file=screen, force_terminal=True, width=80)
    bar.bar = RichProgress(*columns()[1:], console=bar.console)
    bar.begin(10_000, 10)
    bar.since -= 10
    for done in (1_011, 1_012):
        bar.step(done, {"loss": 1.0, "accuracy": 0.5}, 400)
    bar.bar.refresh()
    bar.end()
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    assert "…" not in shown
    assert shown.startswith("maml on my[/red]pictures[bold]: going on from meta-step 10 of 10,000\n")
    for part in (
        " 1012/10000",
        "loss 1.000",
        "accuracy 0.500",
        "tasks/s",
        "left",
    ):
        assert part in shown, part


def test_regression_has_no_accuracy(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar()
    bar.begin(10, 0)
    bar.validated({"iteration": 1, "train_loss": 1.0, "val_loss": 2.0})
    bar.end()
    assert "accuracy" not in capsys.readouterr().err


def test_no_progress_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    show(NoProgress())
    assert capsys.readouterr() == ("", "")


def test_a_display_is_asked_for_by_a_word_or_given() -> None:
    bar = Bar("mine")
    assert display(bar) is bar
    assert isinstance(display(True), Bar)
    assert isinstance(display(False), NoProgress)
    assert isinstance(display(None), NoProgress)
