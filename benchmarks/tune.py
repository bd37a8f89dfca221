"""What a search is worth: 20 trials from a poor start beside the defaults, MAML on Omniglot.

    QUICKSTUDY_DATA=DIR python benchmarks/tune.py [--trials 20] [--iterations 200] [--channels 16]
                                                  [--meta-batch 4] [--tasks 600] [--runs runs/tune]
                                                  [--out results/tune.json]

5-way 1-shot, one thread. The start is poor on purpose: both rates a hundredth of their defaults. The search
sees the 100 meta-validation tasks of its runs; what it found, its start and the defaults are then measured on
others, of the same classes, on which nothing was chosen. Differences are of the same tasks.
"""

from __future__ import annotations

import math
import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from record import count, options, record
from rich.console import Console
from rich.table import Table
from torch import Tensor

from quickstudy.evaluation.tuning import tune
from quickstudy.outer import measure
from quickstudy.outer.config import TrainConfig
from quickstudy.outer.load_run import load_run
from quickstudy.outer.session import train
from quickstudy.outer.words import as_words

WORSE = 100
"""How many times too low the rates are at the start."""


def interval(values: Tensor) -> dict[str, float]:
    """The mean of the tasks' values, and half the width of its 95 % interval."""
    x = values.double()
    return {"mean": float(x.mean()), "ci95": float(1.96 * x.std() / math.sqrt(len(x)))}


def judged(run: Path, tasks: int) -> Tensor:
    """The accuracy of a run on each of so many meta-validation tasks, none of them seen by a search."""
    learner, config, _ = load_run(run)
    return measure(learner, config.problem(config.splits().val, seed=3), tasks).values["accuracy"]


def main() -> None:
    parser = options(__doc__, "tune")
    parser.add_argument("--trials", type=count, default=20)
    parser.add_argument("--iterations", type=count, default=200)
    parser.add_argument("--channels", type=count, default=16)
    parser.add_argument("--meta-batch", type=count, default=4)
    parser.add_argument("--tasks", type=count, default=600)
    parser.add_argument("--runs", type=Path, default=Path("runs/tune"), help="where runs go")
    given = parser.parse_args()
    torch.set_num_threads(1)
    began = time.perf_counter()
    usual = TrainConfig(
        data="omniglot",
        learner="maml",
        channels=given.channels,
        iterations=given.iterations,
        meta_batch=given.meta_batch,
        validation_tasks=100,
        threads=1,
    )
    poor = replace(
        usual,
        outer_lr=(usual.outer_lr or 0) / WORSE,
        settings={**usual.settings, "inner_lr": usual.settings["inner_lr"] / WORSE},
    )
    runs = {"defaults": given.runs / "defaults", "start": given.runs / "start"}
    for config, run in zip((usual, poor), runs.values(), strict=True):
        train(config, run, resume=True)
    middle = time.perf_counter()
    found = tune(
        poor,
        given.runs / "search",
        trials=given.trials,
        resume=True,
        told=lambda trial, now: Console().print(trial.number, trial.outcome, trial.value, trial.values),
    )
    seconds, middle = time.perf_counter() - middle, time.perf_counter()
    assert found.run is not None
    runs["found"] = found.run
    accuracy = {name: judged(run, given.tasks) for name, run in runs.items()}
    row: dict[str, Any] = {name: interval(values) for name, values in accuracy.items()}
    row["found less defaults"] = interval(accuracy["found"] - accuracy["defaults"])
    outcomes = [t.outcome for t in found.trials]
    record(
        given.out,
        on_data=True,
        setting=f"Omniglot, MAML, 5-way 1-shot, conv4 of {given.channels} channels, one thread",
        iterations=given.iterations,
        meta_batch=given.meta_batch,
        tasks=given.tasks,
        searched={name: str(values) for name, values in found.space.items()},
        start=found.trials[0].values,
        best={"trial": found.best.number, "values": found.best.values, "accuracy": found.best.value},
        importance=found.importance,
        outcomes={kind: outcomes.count(kind) for kind in dict.fromkeys(outcomes)},
        accuracy=row,
        train=shlex.join(["quickstudy", "train", *as_words(found.config)]),
        trials=[[t.number, t.outcome, t.value, t.values, t.seconds] for t in found.trials],
        search_seconds=round(seconds, 1),
        wall_seconds=round(time.perf_counter() - began, 1),
    )
    table = Table("what", "accuracy on other meta-validation tasks, percent")
    for name, v in row.items():
        table.add_row(name, f"{100 * v['mean']:.2f} ± {100 * v['ci95']:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
