"""`quickstudy demo`: the main job in about two minutes, offline."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from quickstudy.app.console import announce
from quickstudy.app.options import parse
from quickstudy.app.pictures import draw_curve
from quickstudy.errors import UserError
from quickstudy.evaluation.evaluate import SEED, evaluate
from quickstudy.evaluation.floors import FLOORS, floors, floors_table
from quickstudy.evaluation.plots import task_picture
from quickstudy.outer.config import TrainConfig
from quickstudy.outer.load_run import load_run
from quickstudy.outer.progress import Bar
from quickstudy.outer.session import load_splits, train

NEXT = {
    "serve {out}": "draw classes of your own in a browser",
    "report {out}": "all that is known of the run, on one page",
    "predict {out} --support FOLDER --query PICTURE...": "new classes from a few examples",
    "train --data omniglot --learner protonet --out runs/omniglot": "1,623 handwritten characters",
    "train --data FOLDER --learner protonet --out runs/mine": "your own pictures",
    "--help": "everything else",
}
"""What to type next, and what for."""


EXAMPLES = """The main job, offline, on Glyphs, which are made-up handwritten characters: meta-train
prototypical networks, measure them on unseen classes beside what one would do otherwise, draw a task.

Examples:
  quickstudy demo                              about two minutes on two cores; leaves its run in runs/demo
  quickstudy demo --iterations 2000            longer, better
  quickstudy evaluate runs/demo --shot 5       measure its run another way"""


@dataclass(frozen=True)
class Demo:
    """What to train and measure.

    Args:
        out: the run folder; a second call goes on from it.
        tasks: unseen tasks to measure on.
        iterations: meta-steps.
    """

    out: Path = Path("runs/demo")
    tasks: int = 200
    iterations: int = 400


def demo_config(iterations: int) -> TrainConfig:
    """What the demo trains."""
    return TrainConfig(
        data="glyphs",
        learner="protonet",
        query=5,
        channels=32,
        norm="running",
        outer_lr=0.01,  # high, and falling to 0: the most in a minute
        schedule="cosine",
        iterations=iterations,
        validate_every=max(1, iterations // 5),
        validation_tasks=40,
    )


def main(args: Sequence[str]) -> int:
    """Train, measure, draw."""
    given = parse(Demo, args, "demo", EXAMPLES)
    if given.tasks < 2:
        raise UserError(f"tasks must be at least 2 for an interval, not {given.tasks}")
    begun = time.monotonic()
    out = Console(highlight=False)
    config = demo_config(given.iterations)
    out.print(
        "Glyphs: made-up characters, each example drawn by another hand; 5-way 1-shot on unseen classes"
    )
    train(config, given.out, resume=True, progress=Bar("meta-training prototypical networks"))
    learner, config, run = load_run(given.out)
    splits = load_splits(config, run)
    source = config.problem(splits.test, seed=SEED)
    meta = evaluate(learner, source, given.tasks, progress=True)
    rows = floors(
        config,
        splits,
        source=source,
        n_tasks=given.tasks,
        search_tasks=min(20, given.tasks),
        cache=given.out / FLOORS,
        progress=True,
        say=lambda row: announce(f"{row.name}: {row.evaluation}"),
    )
    out.print(floors_table(rows, learner=("protonet, meta-learned", meta)))
    curve = draw_curve(run)
    task = source.task(0)
    names = [splits.test.names[int(c)] for c in task.classes] if task.classes is not None else None
    task_picture(task, learner.adapt(task.support), given.out / "task.png", names=names)
    beside = f", {curve}" if curve else ""
    out.print(f"pictures: {given.out / 'task.png'} (a task and its predictions){beside}")
    out.print(f"the run is in {given.out}; {time.monotonic() - begun:.0f} s")
    words = {f"quickstudy {command.format(out=given.out)}": what for command, what in NEXT.items()}
    lines = [f"  {command:{max(map(len, words))}}  {what}" for command, what in words.items()]
    out.print("\nNext, type one of these:", *lines, sep="\n", soft_wrap=True, markup=False)
    sys.stdout.flush()
    return 0
