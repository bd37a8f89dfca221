"""Runs on functions, on the command line: what `evaluate` measures, and what `predict` answers at points."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from quickstudy.app.console import announce
from quickstudy.app.estimators import FewShotRegressor
from quickstudy.app.pictures import draw_curve
from quickstudy.errors import DataError, RunError
from quickstudy.evaluation.by_step import by_step, steps_picture
from quickstudy.evaluation.evaluate import Evaluation, evaluate
from quickstudy.evaluation.fit import fit_picture
from quickstudy.evaluation.function_floors import function_floors
from quickstudy.evaluation.search import choose_settings
from quickstudy.files import write_json
from quickstudy.learners import Learner
from quickstudy.learners.descent import DescentLearner
from quickstudy.outer.config import TrainConfig
from quickstudy.outer.distributed import world
from quickstudy.outer.measure import Measurement
from quickstudy.outer.run_folder import RunFolder
from quickstudy.tasks import TaskSource

FEW = 40
"""Tasks on which the error is measured after each number of inner steps."""
SEARCH = 50
"""Meta-validation tasks for each setting tried."""


def evaluate_functions(
    learner: Learner,
    config: TrainConfig,
    run: RunFolder,
    *,
    split: Literal["train", "val", "test"],
    tasks: int,
    seed: int,
    search: bool,
    as_json: bool,
    **changes: Any,
) -> int:
    """Measure a run on functions it has never seen, beside simple answers; keep numbers and pictures in it.

    Args:
        split: which functions.
        tasks: how many.
        seed: which of them.
        search: first choose inner steps and rate on meta-validation.
        as_json: print one JSON object instead.
        changes: of shot and query, what is not as in the run.
    """
    quiet = as_json or not world().leads
    say = (lambda *words: None) if quiet else Console(highlight=False, soft_wrap=True).print
    parts, strategy = config.parts(), run.config.get("strategy")
    source: TaskSource = config.problem(getattr(parts, split), seed=seed, **changes)
    chosen: dict[str, Any] = {}
    if search:
        validation = config.problem(parts.val, **changes)
        chosen, _ = choose_settings(learner, validation, SEARCH, strategy=strategy, progress=True)
        say(f"chosen on meta-validation: {', '.join(f'{k} {v}' for k, v in chosen.items()) or 'nothing'}")
    result = evaluate(learner, source, tasks, strategy=strategy, progress=True)
    course = by_step(learner, source, min(tasks, FEW)) if isinstance(learner, DescentLearner) else None
    if not world().leads:
        return 0
    floors = function_floors(source, tasks)
    report = {
        **result.json(),
        "seed": seed,
        "split": split,
        "learner": config.learner,
        "chosen": chosen,
        "run": str(run.path),
        "finished": run.finished,
        "floors": [{"name": name, **numbers(measured)} for name, measured in floors.items()],
    }
    if course is not None:
        report["by_step"] = {count: numbers(measured) for count, measured in course.items()}
    usual = {"tasks": 1000, "seed": 2, "query": 100}
    other = {"tasks": tasks, "seed": seed, "query": result.query}
    words = [split, f"{result.shot}shot", *(f"{v}{k}" for k, v in other.items() if v != usual[k])]
    path = run.path / "evaluations" / f"{'-'.join([*words, *['searched'] * search])}.json"
    try:
        path.parent.mkdir(exist_ok=True)
        write_json(path, report)
        fit_picture(learner, next(source.batch(np.array([0])).unbatch()), picture(path, "fit"))
        if course is not None and isinstance(learner, DescentLearner):
            steps_picture(course, learner.steps, picture(path, "steps"))
        draw_curve(run)
        announce(f"kept: {path}, and pictures beside it")
    except (OSError, RunError) as error:
        announce(f"nothing kept: {error}")
    if not run.finished:
        announce(f"{run.path} has not come to its end: this is its best so far (train --resume goes on)")
    say(f"{config.learner} on {config.data} ({split} functions): {result}")
    say(table(config.learner, result, floors))
    if as_json:
        print(json.dumps(report))
    sys.stdout.flush()
    return 0


def picture(path: Path, kind: str) -> Path:
    """That of an evaluation's pictures."""
    return path.with_name(f"{path.stem}-{kind}.png")


def numbers(measured: Measurement) -> dict[str, float | None]:
    """The mean squared error with its interval, and the log-likelihood where one is stated."""
    found = {"mse": measured.mean("loss"), "ci95": measured.ci95("loss")}
    if "log_likelihood" in measured.values:
        found["log_likelihood"] = measured.mean("log_likelihood")
    return {k: v if math.isfinite(v) else None for k, v in found.items()}


def table(learner: str, result: Evaluation, floors: dict[str, Measurement]) -> Table:
    """Simple answers and the learner's, in rows."""
    found = Table("", "mean squared error ± 95 %", box=SIMPLE_HEAD)
    rows = {name: (m.mean("loss"), m.ci95("loss")) for name, m in floors.items()}
    likely = {n: m.mean("log_likelihood") for n, m in floors.items() if "log_likelihood" in m.values}
    rows[learner] = (result.loss, result.ci95)
    if "log_likelihood" in result.metrics:
        likely[learner] = result.metrics["log_likelihood"]
    if likely:
        found.add_column("log-likelihood, nats a point")
    for name, (loss, ci95) in rows.items():
        nats = [f"{likely[name]:.3f}" if name in likely else ""] * bool(likely)
        found.add_row(name, f"{loss:.4f} ± {ci95:.4f}", *nats)
    return found


def predict_values(learner: Learner, support: Path, queries: Sequence[Path], as_json: bool) -> int:
    """Learn a function from the points of a file, and print its values at others.

    Args:
        support: a CSV file, x and y in a line.
        queries: numbers, or files of such, one in a line.
    """
    shown = points(support, 2)
    asked = np.concatenate([at(query) for query in queries])
    regressor = FewShotRegressor(learner).fit(shown[:, :1], shown[:, 1])
    spread = regressor.predictor_.spread
    found = regressor.predict(asked[:, None], return_std=spread)
    y, std = found if spread else (found, np.full(len(asked), np.nan))
    if as_json:
        rows = [
            {"x": a, "y": b, **({"std": c} if spread else {})}
            for a, b, c in zip(asked.tolist(), y.tolist(), std.tolist(), strict=True)
        ]
        print(json.dumps({"predictions": rows}))
        return 0
    result = Table("x", "y", *["standard deviation"] * spread)
    for a, b, c in zip(asked, y, std, strict=True):
        result.add_row(f"{a:g}", f"{b:.4f}", *[f"{c:.4f}"] * spread)
    Console(file=sys.stdout).print(result)
    return 0


def at(query: Path) -> np.ndarray:
    """The number that a word is, or those in the file that it names.

    >>> at(Path("-1.5"))
    array([-1.5])
    """
    try:
        value = float(str(query))
    except ValueError:
        return points(query, 1)[:, 0]
    if not math.isfinite(value):
        raise DataError(f"--query {query}: no finite number")
    return np.array([value])


def points(path: Path, columns: int) -> np.ndarray:
    """The lines of a CSV file `[n, columns]`; a first one that holds no numbers names the columns.

    Raises:
        DataError: no such file, or a line that is not so many finite numbers.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = [line for line in csv.reader(file) if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read as a CSV file of numbers ({why})") from error
    found = []
    for i, line in enumerate(lines):
        try:
            values = [float(word) for word in line]
        except ValueError:
            if i == 0:
                continue
            values = []
        if len(values) != columns or not all(map(math.isfinite, values)):
            kind = "a number" if columns == 1 else f"{columns} numbers, x and y"
            raise DataError(f"{path}: line {i + 1} is not {kind}: {','.join(line)[:60]}")
        found.append(values)
    if not found:
        raise DataError(f"{path}: holds no numbers")
    return np.array(found)
