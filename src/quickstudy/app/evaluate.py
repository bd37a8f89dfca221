"""`quickstudy evaluate`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from quickstudy.app.cli import parse
from quickstudy.errors import UserError
from quickstudy.evaluation.evaluate import evaluate, evaluate_modes
from quickstudy.evaluation.floors import floors, floors_table
from quickstudy.evaluation.plots import training_curve
from quickstudy.outer.session import load_run

EXAMPLES = """Measure a run on classes it has never seen: accuracy with its 95 % interval.

Examples:
  quickstudy evaluate runs/a                            the way and shot it was trained for, 1000 tasks
  quickstudy evaluate runs/a --way 20 --shot 5          any way and shot its learner allows
  quickstudy evaluate runs/a --modes --floors           every normalisation mode, and the controls
  quickstudy evaluate runs/a --json > result.json       one JSON object"""


@dataclass(frozen=True)
class Evaluate:
    """What to measure.

    Args:
        run: the run folder.
        split: which classes.
        way: classes a task; by default the run's.
        shot: support examples a class; by default the run's.
        query: query examples a class; by default the run's.
        tasks: how many tasks; at least 600 for a number to publish.
        seed: which tasks.
        statistics: normalise by support, running or batch statistics instead of the run's own way.
        modes: measure every normalisation mode that applies.
        floors: measure the controls on the same tasks (they are trained now: minutes).
        json: print one JSON object on standard output.
        data_dir: where data lies.
    """

    run: tyro.conf.Positional[Path]
    split: Literal["train", "val", "test"] = "test"
    way: int | None = None
    shot: int | None = None
    query: int | None = None
    tasks: int = 1000
    seed: int = 2
    statistics: Literal["support", "running", "batch"] | None = None
    modes: Annotated[bool, tyro.conf.arg()] = False
    floors: bool = False
    json: bool = False
    data_dir: Path | None = None


def main(args: Sequence[str]) -> int:
    """Parse and measure."""
    given = parse(Evaluate, args, "evaluate", EXAMPLES)
    if given.tasks < 2:
        raise UserError(f"tasks must be at least 2 for an interval, not {given.tasks}")
    learner, config, run = load_run(given.run, given.data_dir)
    splits = config.splits()
    changes = {
        k: v for k, v in (("way", given.way), ("shot", given.shot), ("query", given.query)) if v is not None
    }
    data = getattr(splits, given.split)
    source = config.problem(data, seed=given.seed, **changes)
    note = Console(stderr=True)
    shown = not given.json
    if given.modes:
        results = evaluate_modes(learner, source, given.tasks, progress=True)
    else:
        results = [evaluate(learner, source, given.tasks, statistics=given.statistics, progress=True)]
    report: dict[str, Any] = {
        **results[0].json(),
        "split": given.split,
        "learner": config.learner,
        "run": str(given.run),
    }
    if given.modes:
        report["modes"] = [r.json() for r in results]
    if shown:
        for result in results:
            print(f"{config.learner} on {data.name} ({given.split} classes): {result}")
    if given.floors:
        rows = floors(
            config, splits, source=source, n_tasks=given.tasks, cache=run.path / "floors", progress=True
        )
        report["floors"] = [row.json() for row in rows]
        if shown:
            Console().print(floors_table([*rows], learner=(config.learner, results[0])))
    if given.json:
        print(json.dumps(report))
    records = list(run.records())
    if records and not (run.path / "curve.png").exists():
        try:
            training_curve(records, run.path / "curve.png")
        except OSError as error:
            note.print(f"no curve.png: {error}", highlight=False)
    sys.stdout.flush()
    return 0
