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
from quickstudy.app.pictures import draw_curve, draw_evaluation
from quickstudy.errors import RunError, UserError
from quickstudy.evaluation.evaluate import Evaluation, count, evaluate, evaluate_modes
from quickstudy.evaluation.floors import floors, floors_table
from quickstudy.evaluation.scores import hardest
from quickstudy.files import write_json
from quickstudy.learners import Learner
from quickstudy.outer.run_folder import RunFolder
from quickstudy.outer.session import load_run
from quickstudy.tasks import ClassTasks

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
    """Parse, measure, keep the numbers and pictures in the run folder."""
    given = parse(Evaluate, args, "evaluate", EXAMPLES)
    if given.tasks < 2:
        raise UserError(f"tasks must be at least 2 for an interval, not {given.tasks}")
    learner, config, run = load_run(given.run, given.data_dir)
    splits = config.splits()
    asked = {"way": given.way, "shot": given.shot, "query": given.query}
    data = getattr(splits, given.split)
    source = config.problem(data, seed=given.seed, **{k: v for k, v in asked.items() if v is not None})
    shown = not given.json
    if given.modes:
        results = evaluate_modes(learner, source, given.tasks, progress=True)
    else:
        results = [evaluate(learner, source, given.tasks, statistics=given.statistics, progress=True)]
    result = results[0]
    report: dict[str, Any] = {
        **result.json(),
        "split": given.split,
        "learner": config.learner,
        "run": str(given.run),
    }
    if given.modes:
        report["modes"] = [r.json() for r in results]
    if shown:
        for r in results:
            print(f"{config.learner} on {data.name} ({given.split} classes): {r}")
        for i, (name, right, other) in enumerate(hardest(result.confusion)):
            title = "" if i else "hardest classes:"
            print(f"{title:16} {100 * right:3.0f} %  {name}, most often taken for {other}")
    if given.floors:
        rows = floors(
            config, splits, source=source, n_tasks=given.tasks, cache=run.path / "floors", progress=True
        )
        report["floors"] = [row.json() for row in rows]
        if shown:
            Console().print(floors_table([*rows], learner=(config.learner, result)))
    if given.json:
        print(json.dumps(report))
    sys.stdout.flush()
    try:
        kept = keep(report, result, learner, source, run)
        told = f"kept: {kept} with every class's confusions, and pictures beside it"
    except (OSError, RunError) as error:
        told = f"nothing kept: {error}"
    Console(stderr=True).print(told, highlight=False, soft_wrap=True)
    return 0


def keep(
    report: dict[str, Any], result: Evaluation, learner: Learner, source: ClassTasks, run: RunFolder
) -> Path:
    """Write the report, every class's confusions and the pictures into the run folder."""
    mode = f"-{result.statistics}" if result.statistics else ""
    name = f"{report['split']}-{count(source.way)}way-{count(source.shot)}shot{mode}".replace(" ", "-")
    stem = run.path / "evaluations" / name
    stem.parent.mkdir(exist_ok=True)
    path = stem.with_name(f"{name}.json")
    write_json(path, {**report, "confusion": result.confusion})
    draw_evaluation(result, learner, source, stem)
    draw_curve(run)
    return path
