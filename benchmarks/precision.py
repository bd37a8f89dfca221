"""What bf16 costs in accuracy: MAML and prototypes on Omniglot, trained in float32 and in bf16.

    QUICKSTUDY_DATA=DIR python benchmarks/precision.py [--iterations 200] [--channels 16] [--tasks 600]
                                                       [--out results/precision.json]

5-way 1-shot, the same seeds, weights and tasks; float32 by torch's kernels too. Each run is measured in
float32, as `quickstudy evaluate` does, and in bf16. The difference is that of the same tasks, so its interval
is narrower than those of the accuracies; the chance of a training run comes on top, which the seeds show.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import count, options, record
from rich.console import Console
from rich.table import Table

from quickstudy.inner import computing_in
from quickstudy.inner.precision import Precision
from quickstudy.nets import native
from quickstudy.outer import measure, meta_train
from quickstudy.outer.config import TrainConfig

ROOT = Path(__file__).parent.parent
PRECISIONS: tuple[Precision, ...] = ("float32", "bf16")
LEARNERS: dict[str, dict[str, Any]] = {
    "maml": {"meta_batch": 4},
    "protonet": {"train_way": 10, "train_query": 5},
}


def interval(values: np.ndarray) -> dict[str, float]:
    """The mean of the tasks' values, and half the width of its 95 % interval."""
    return {"mean": float(values.mean()), "ci95": float(1.96 * values.std(ddof=1) / math.sqrt(len(values)))}


def trained(config: TrainConfig, splits: Any, tasks: int) -> dict[str, Any]:
    """One run: its seconds, and each test task's accuracy in either precision."""
    learner = config.make_learner(splits.train.image_shape, len(splits.train))
    began = time.perf_counter()
    meta_train(learner, config.training_tasks(splits.train), **config.outer())
    seconds, source = time.perf_counter() - began, config.problem(splits.test, seed=2)
    found: dict[str, Any] = {"seconds": round(seconds, 1)}
    for precision in PRECISIONS:
        with computing_in(precision):
            found[precision] = measure(learner, source, tasks).values["accuracy"].double().numpy()
    return found


def compare(name: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each seed."""
    rows = []
    for seed in given.seeds:
        runs = {}
        for precision in PRECISIONS:
            options = {"channels": given.channels, "iterations": given.iterations, **LEARNERS[name]}
            config = TrainConfig(data="omniglot", learner=name, seed=seed, precision=precision, **options)
            runs[precision] = trained(config, config.splits(), given.tasks)
        rows.append(
            {
                "learner": name,
                "seed": seed,
                **{
                    f"trained in {a}, measured in {b}": interval(runs[a][b])
                    for a in PRECISIONS
                    for b in PRECISIONS
                },
                "trained in bf16 less trained in float32": interval(
                    runs["bf16"]["float32"] - runs["float32"]["float32"]
                ),
                "seconds": {precision: runs[precision]["seconds"] for precision in PRECISIONS},
            }
        )
        Console().print(rows[-1])
    return rows


def main() -> None:
    parser = options(__doc__, "precision")
    parser.add_argument("--iterations", type=count, default=200)
    parser.add_argument("--channels", type=count, default=16)
    parser.add_argument("--tasks", type=count, default=600)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    given = parser.parse_args()
    torch.set_num_threads(1)
    began, rows = time.perf_counter(), []
    with native.allowing(False):
        for name in LEARNERS:
            rows += compare(name, given)
    table = Table("learner", "seed", *(k for k in rows[0] if "trained" in k), title="accuracy, percent")
    for row in rows:
        numbers = [f"{100 * v['mean']:.2f} ± {100 * v['ci95']:.2f}" for k, v in row.items() if "trained" in k]
        table.add_row(row["learner"], str(row["seed"]), *numbers)
    record(
        given.out,
        on_data=True,
        setting=f"Omniglot, 5-way 1-shot, conv4 of {given.channels} channels, support statistics",
        iterations=given.iterations,
        tasks=given.tasks,
        wall_seconds=round(time.perf_counter() - began, 1),
        rows=rows,
    )
    Console().print(table)


if __name__ == "__main__":
    main()
