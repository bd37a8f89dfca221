"""A live display of meta-training on standard error: loss, accuracy, tasks a second, time left."""

from __future__ import annotations

import sys
import time
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress


class Progress(Protocol):
    """What the outer loop tells a display."""

    def begin(self, total: int, done: int) -> None: ...
    def step(self, done: int, metrics: dict[str, float], tasks: int) -> None: ...
    def validated(self, record: dict[str, Any]) -> None: ...
    def end(self) -> None: ...


class NoProgress:
    """Shows nothing."""

    def begin(self, total: int, done: int) -> None:
        pass

    def step(self, done: int, metrics: dict[str, float], tasks: int) -> None:
        pass

    def validated(self, record: dict[str, Any]) -> None:
        pass

    def end(self) -> None:
        pass


def columns() -> list[Any]:
    """The columns of every bar of ours, narrow enough for a terminal of 80."""
    return [
        TextColumn("{task.description}"),
        BarColumn(bar_width=10),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TextColumn("left"),
        TimeRemainingColumn(),
    ]


class Bar:
    """A line with the title, then a rich progress bar in a terminal; anywhere one line a validation.

    Args:
        title: what is being trained.
    """

    def __init__(self, title: str = "meta-training") -> None:
        self.title = title
        self.console = Console(file=sys.stderr)
        # Where nothing can be redrawn, rich would end with an empty line.
        plain = not self.console.is_interactive
        self.bar = RichProgress(*columns()[1:], console=self.console, transient=True, disable=plain)
        self.smooth: dict[str, float] = {}

    def begin(self, total: int, done: int) -> None:
        going_on = f": going on from meta-step {done:,} of {total:,}" if done else ""
        self.console.print(escape(self.title) + going_on, highlight=False, soft_wrap=True)
        self.bar.start()
        self.task = self.bar.add_task("", total=total, completed=done, note="")
        self.since, self.tasks = time.monotonic(), 0

    def step(self, done: int, metrics: dict[str, float], tasks: int) -> None:
        self.tasks += tasks
        for k, v in metrics.items():
            self.smooth[k] = 0.95 * self.smooth.get(k, v) + 0.05 * v
        rate = self.tasks / max(1e-9, time.monotonic() - self.since)
        parts = [f"{k} {v:.3f}" for k, v in self.smooth.items()]
        self.bar.update(self.task, completed=done, note="  ".join([*parts, f"{rate:.0f} tasks/s"]))

    def validated(self, record: dict[str, Any]) -> None:
        shown = {k: v for k, v in record.items() if k.startswith(("train_", "val_")) and isinstance(v, float)}
        band = shown.pop("val_accuracy_ci95", None)
        bands = {} if band is None else {"val_accuracy": f" ± {band:.3f}"}
        parts = [f"{k.replace('_', ' ')} {v:.3f}{bands.get(k, '')}" for k, v in shown.items()]
        self.console.print(f"{record['iteration']:>7}  " + "  ".join(parts), highlight=False, soft_wrap=True)

    def end(self) -> None:
        self.bar.stop()


def display(progress: Progress | bool | None) -> Progress:
    """The display that is given; a bar for True, nothing for False or None.

    >>> type(display(False)).__name__
    'NoProgress'
    """
    if progress is None or isinstance(progress, bool):
        return Bar() if progress else NoProgress()
    return progress
