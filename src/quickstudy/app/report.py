"""`quickstudy report`: several runs on one page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from quickstudy.app.console import announce
from quickstudy.app.options import parse
from quickstudy.errors import UserError
from quickstudy.evaluation.reports import subjects, write_report

EXAMPLES = """Write a page on one run or several: accuracies (of functions errors) with intervals and floors,
which one is better on the same tasks, training curves with bands over seeds, ways by shots, calibration,
confusions, the worst tasks with their pictures, time and memory, and the commands to have it all again. One
file.

Examples:
  quickstudy report runs/a
  quickstudy report runs/a runs/b runs/c --out reports/abc
  quickstudy report runs/a --tasks 1000 --grid 200        numbers to publish
  quickstudy evaluate runs/a --floors                     before: then trained controls are in it, too

What is measured is kept in the run folders; a second report is quick. Of Quick, Draw! and MAML the published
curves are drawn behind the runs' own; all six: quickstudy recipe run quickdraw-curves, then
  quickstudy report runs/quickdraw-curves/*"""


@dataclass(frozen=True)
class Report:
    """What to report on.

    Args:
        runs: run folders.
        out: the folder to write report.html and its pictures into.
        tasks: meta-test tasks for each run; at least 600 for a number to publish.
        grid: tasks for each cell of way and shot; 0 leaves the heat map out.
        device: cpu, cuda, cuda:1 …; by default a CUDA GPU where there is one.
        data_dir: where built-in data lie; by default $QUICKSTUDY_DATA, then the cache folder.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    out: Path = Path("report")
    tasks: int = 200
    grid: int = 40
    device: str | None = None
    data_dir: Path | None = None


def main(args: Sequence[str]) -> int:
    """Parse, measure, write."""
    given = parse(Report, args, "report", EXAMPLES)
    if not given.runs:
        raise UserError("no run is named: quickstudy report runs/a")
    if given.tasks < 2 or given.grid == 1 or given.grid < 0:
        raise UserError("an interval needs 2 tasks, of --tasks and of --grid (--grid 0: no heat map)")
    found = subjects(given.runs, given.tasks, given.grid, given.data_dir, given.device, announce)
    page = write_report(found, given.out)
    announce(f"kept: {page}, with pictures in {page.parent / 'pictures'}")
    return 0
