"""`quickstudy evaluate`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console
from rich.markup import escape

from quickstudy.app.console import announce
from quickstudy.app.functions import evaluate_functions
from quickstudy.app.options import parse
from quickstudy.app.pictures import draw_curve, draw_evaluation
from quickstudy.errors import RunError, UserError
from quickstudy.evaluation.evaluate import SEED, Evaluation, count, evaluate, evaluate_modes, normalising
from quickstudy.evaluation.floors import FLOORS, floors, floors_table
from quickstudy.evaluation.particulars import Particulars, particulars
from quickstudy.evaluation.scores import hardest
from quickstudy.evaluation.search import choose_settings
from quickstudy.files import write_json
from quickstudy.learners import Learner
from quickstudy.learners.stream import StreamLearner
from quickstudy.outer.distributed import world
from quickstudy.outer.load_run import load_run
from quickstudy.outer.provenance import peak_memory_mb
from quickstudy.outer.run_folder import RunFolder
from quickstudy.outer.session import load_splits, with_steps_taken
from quickstudy.tasks import ClassTasks

EXAMPLES = """Measure a run on classes it has never seen: accuracy with its 95 % interval.

Examples:
  quickstudy evaluate runs/a                            the way and shot it was trained for, 1000 tasks
  quickstudy evaluate runs/a --way 20 --shot 5          any way and shot its learner allows
  quickstudy evaluate runs/a --modes                    every normalisation mode that applies
  quickstudy evaluate runs/a --floors --search          the controls on the same tasks, all equally tuned
  quickstudy evaluate runs/a --json > result.json       one JSON object
  quickstudy evaluate runs/d --shot 5                   of a run on functions: its mean squared error

The net computes in float32, also that of a run with --precision bf16."""


OF_CLASSES = ("way", "unlabelled", "distractors", "statistics", "modes", "floors", "data")
"""The options that a run on functions has no use for; its floors are measured always."""
SEARCH = 50
"""Meta-validation tasks for each setting tried, the learner's as the controls'."""


@dataclass(frozen=True)
class Evaluate:
    """What to measure.

    Args:
        run: the run folder.
        split: which classes.
        way: classes a task; by default the run's.
        shot: support examples a class; by default the run's.
        query: query examples a class; by default the run's.
        unlabelled: further examples of each class, given without labels; by default the run's.
        distractors: classes that appear among these only; by default the run's.
        tasks: how many tasks; at least 600 for a number to publish.
        seed: which tasks.
        statistics: normalise by support, running or batch statistics instead of the run's own way.
        modes: measure every normalisation mode that applies.
        floors: measure the controls on the same tasks. They are trained now, on as many pictures as the
            learner was, and tuned: minutes to an hour. What is measured is kept; a second call goes on.
        search: first choose inner steps and rate on meta-validation, as the controls do.
        json: print one JSON object on standard output.
        device: cpu, cuda, cuda:1 …; by default a CUDA GPU where there is one.
        data: the folder of the run's data, where it has moved since.
        data_dir: where built-in data lie; by default $QUICKSTUDY_DATA, then the cache folder.
    """

    run: tyro.conf.Positional[Path]
    split: Literal["train", "val", "test"] = "test"
    way: int | None = None
    shot: int | None = None
    query: int | None = None
    unlabelled: int | None = None
    distractors: int | None = None
    tasks: int = 1000
    seed: int = SEED
    statistics: Literal["support", "running", "batch"] | None = None
    modes: bool = False
    floors: bool = False
    search: bool = False
    json: bool = False
    device: str | None = None
    data: str | None = None
    data_dir: Path | None = None


def main(args: Sequence[str]) -> int:
    """Parse, measure, keep the numbers and pictures in the run folder."""
    given = parse(Evaluate, args, "evaluate", EXAMPLES)
    if given.tasks < 2:
        raise UserError(f"tasks must be at least 2 for an interval, not {given.tasks}")
    if given.modes and given.statistics:
        raise UserError("--modes measures every mode: leave --statistics away")
    if given.split != "test" and (given.floors or given.search):
        raise UserError(
            f"--split {given.split}: --floors and --search choose on meta-validation classes and pretrain on "
            "meta-train classes, so that only --split test measures them fairly"
        )
    if given.floors and world().size > 1:
        raise UserError("--floors is the work of one process: start it without torchrun")
    quiet = given.json or not world().leads
    say = (lambda *words: None) if quiet else Console(highlight=False, soft_wrap=True).print
    learner, config, run = load_run(given.run, given.data_dir, given.device)
    if config.functions:
        for name in OF_CLASSES:
            if getattr(given, name):
                raise UserError(f"{config.data} has no classes of pictures: leave --{name} away")
        changes = {name: v for name in ("shot", "query") if (v := getattr(given, name)) is not None}
        return evaluate_functions(
            learner,
            config,
            run,
            split=given.split,
            tasks=given.tasks,
            seed=given.seed,
            search=given.search,
            as_json=given.json,
            **changes,
        )
    if given.data:
        config = replace(config, data=given.data)
    splits = load_splits(config, run)
    names = ("way", "shot", "query", "unlabelled", "distractors")
    changes = {k: v for k in names if (v := getattr(given, k)) is not None}
    if (given.unlabelled or given.distractors) and not learner.uses_unlabelled:
        raise UserError(f"{config.learner} learns from labelled examples only: leave --unlabelled away")
    source = config.problem(getattr(splits, given.split), seed=given.seed, **changes)
    chosen: dict[str, Any] = {}
    if given.search:
        with normalising(learner, given.statistics):
            validation, strategy = config.problem(splits.val, **changes), run.config.get("strategy")
            chosen, _ = choose_settings(learner, validation, SEARCH, strategy=strategy, progress=True)
        words = ", ".join(f"{name.replace('_', '-')} {value}" for name, value in chosen.items())
        say(f"chosen on meta-validation: {words or 'nothing: this learner has no such settings'}")
    results = measured(given, learner, source, run)
    result = results[0]
    besides = particulars(
        learner,
        source,
        given.tasks,
        statistics=given.statistics,
        strategy=run.config.get("strategy"),
        progress=True,
    )
    if not world().leads:
        return 0
    report: dict[str, Any] = {
        **result.json(),
        "split": given.split,
        "learner": config.learner,
        "chosen": chosen,
        "run": str(given.run),
        "finished": run.finished,
        **besides.json(),
    }
    if given.modes:
        report["modes"] = [r.json() for r in results]
    kept = keep(run, stem(given, result), report, result)  # before a word: pipes may break
    if kept:
        draw(run, kept, result, besides, learner, source)
    if not run.finished:
        announce(f"{run.path} has not come to its end: this is its best so far (train --resume goes on)")
    for r in results:
        say(escape(f"{config.learner} on {source.data.name} ({given.split} classes): {r}"))
    if besides.presentations is not None:
        say(f"by presentation of a class in a stream, before its label is told: {besides.presentations}")
    elif isinstance(learner, StreamLearner):
        say("not by presentation: pictures are normalised by later ones too (train with --norm layer)")
    for i, (name, right, other) in enumerate(hardest(result.confusion)):
        title = "" if i else "hardest classes:"
        say(escape(f"{title:16} {100 * right:3.0f} %  {name}, most often taken for {other}"))
    if given.floors:
        rows = floors(
            with_steps_taken(config, run),
            splits,
            source=source,
            n_tasks=given.tasks,
            statistics=given.statistics,
            search_tasks=SEARCH,
            cache=run.path / FLOORS,
            progress=True,
            say=lambda row: announce(f"{row.name}: {row.evaluation}"),
        )
        report["floors"] = [row.json() for row in rows]
        kept = keep(run, stem(given, result), report, result)
        say(floors_table([*rows], learner=(config.learner, result)))
    if given.json:
        print(json.dumps(report))
    sys.stdout.flush()
    memory = peak_memory_mb()
    if memory:
        announce(f"peak memory {memory:.0f} MB")
    if kept:
        announce(f"kept: {kept} with every class's confusions, and pictures beside it")
    return 0


def measured(given: Evaluate, learner: Learner, source: ClassTasks, run: RunFolder) -> list[Evaluation]:
    """What was asked for: the run's own mode, another one, or all."""
    strategy = run.config.get("strategy")
    if given.modes:
        return evaluate_modes(learner, source, given.tasks, strategy=strategy, progress=True)
    statistics = given.statistics
    return [evaluate(learner, source, given.tasks, statistics=statistics, strategy=strategy, progress=True)]


def stem(given: Evaluate, result: Evaluation) -> str:
    """The name of an evaluation's files: what was measured, and what about it was not as usual."""
    parts = [given.split, f"{count(result.way)}way", f"{count(result.shot)}shot", result.statistics or ""]
    parts += [name for name in ("modes", "floors") if getattr(given, name)]
    parts += ["searched"] * given.search
    for name in ("query", "unlabelled", "distractors", "tasks", "seed"):
        value = getattr(given, name)
        parts += [f"{value}{name}"] if value != getattr(Evaluate, name) else []
    return "-".join(part.replace(" ", "-") for part in parts if part)


def keep(run: RunFolder, name: str, report: dict[str, Any], result: Evaluation) -> Path | None:
    """Write the report with every class's confusions into the run folder; None where that cannot be done."""
    path = run.path / "evaluations" / f"{name}.json"
    try:
        path.parent.mkdir(exist_ok=True)
        write_json(path, {**report, "confusion": result.confusion})
    except (OSError, RunError) as error:
        announce(f"nothing kept: {error}")
        return None
    return path


def draw(
    run: RunFolder,
    kept: Path,
    result: Evaluation,
    besides: Particulars,
    learner: Learner,
    source: ClassTasks,
) -> None:
    """Pictures beside the report: the evaluation's, and how training went."""
    try:
        draw_evaluation(result, besides, learner, source, kept.with_suffix(""))
        draw_curve(run)
    except (OSError, RunError) as error:
        announce(f"no pictures: {error}")
