"""`quickstudy recipe`: the published experiments, trained, measured, written down."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from quickstudy.app.cli import parse
from quickstudy.errors import UserError
from quickstudy.evaluation import evaluate, floors
from quickstudy.outer.atomic import write_json
from quickstudy.outer.progress import Bar
from quickstudy.outer.run_folder import environment
from quickstudy.outer.session import load_run, train
from quickstudy.recipes import RECIPES, Recipe, recipe

EXAMPLES = """Published experiments: train as the paper says, measure, write the numbers with what made them.

Examples:
  quickstudy recipe list
  quickstudy recipe run omniglot-protonet        trains into runs/, writes results/omniglot-protonet.json
An interrupted recipe goes on where it stopped."""


@dataclass(frozen=True)
class RecipeOptions:
    """What to do.

    Args:
        action: list or run.
        name: the recipe, for run.
        runs: where run folders go.
        results: where the JSON goes.
        tasks: test tasks instead of the recipe's own number.
        floors: measure the controls too.
        data_dir: where data lies.
    """

    action: tyro.conf.Positional[Literal["list", "run"]]
    name: tyro.conf.Positional[str] = ""
    runs: Path = Path("runs")
    results: Path = Path("results")
    tasks: int | None = None
    floors: bool = True
    data_dir: Path | None = None


def commit() -> str | None:
    """The commit of the checkout the numbers were made with, with a mark where it was changed."""
    try:
        here = Path(__file__).parent
        head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True)
        dirty = subprocess.run(["git", "status", "--porcelain", "--", "."], cwd=here, capture_output=True, text=True)
    except OSError:
        return None
    if head.returncode:
        return None
    return head.stdout.strip() + ("+changes" if dirty.stdout.strip() else "")


def run_recipe(name: str, plan: Recipe, given: RecipeOptions) -> dict[str, Any]:
    """Train every seed, measure every number; the result as JSON."""
    rows: list[dict[str, Any]] = []
    seconds, floor_rows = 0.0, []
    for seed in plan.seeds:
        config = dataclasses.replace(plan.config, seed=seed, data_dir=given.data_dir)
        out = given.runs / (name if len(plan.seeds) == 1 else f"{name}-{seed}")
        train(config, out, resume=True, progress=Bar(f"{name}, seed {seed}"))
        learner, config, run = load_run(out, given.data_dir)
        seconds += run.read_json("summary.json")["seconds"]
        splits = config.splits()
        for m in plan.measures:
            changes = {k: v for k, v in (("way", m.way), ("shot", m.shot), ("query", m.query)) if v is not None}
            source = config.problem(splits.test, seed=2, **changes)
            result = evaluate(learner, source, given.tasks or m.tasks, statistics=m.statistics, progress=True)
            rows.append({**result.json(), "train_seed": seed, "paper": m.paper, "target": m.target})
        if given.floors and plan.floors and seed == plan.seeds[0]:
            source = config.problem(splits.test, seed=2)
            count = min(given.tasks or 600, 600)
            floor_rows = [
                row.json()
                for row in floors(
                    config, splits, source=source, n_tasks=count, cache=out / "floors", progress=True
                )
            ]
    return {
        "recipe": name,
        "title": plan.title,
        "published": plan.source,
        "command": f"QUICKSTUDY_DATA=DIR quickstudy recipe run {name}",
        "commit": commit(),
        "seeds": list(plan.seeds),
        "training_seconds": round(seconds, 1),
        "environment": environment(),
        "config": plan.config.json(),
        "results": rows,
        "floors": floor_rows,
    }


def main(args: Sequence[str]) -> int:
    """Parse, list or run."""
    given = parse(RecipeOptions, args, "recipe", EXAMPLES)
    out = Console(highlight=False)
    if given.action == "list":
        table = Table("recipe", "what it shows", "published")
        for name, plan in RECIPES.items():
            table.add_row(name, plan.title, plan.source)
        out.print(table)
        return 0
    if not given.name:
        raise UserError(f"recipe run needs a name (known: {', '.join(RECIPES)})")
    plan = recipe(given.name)
    result = run_recipe(given.name, plan, given)
    given.results.mkdir(parents=True, exist_ok=True)
    path = given.results / f"{given.name}.json"
    write_json(path, result)
    table = Table("way", "shot", "mode", "accuracy", "paper", "target", "seed")
    for row in result["results"]:
        table.add_row(
            str(row["way"]),
            str(row["shot"]),
            str(row.get("statistics")),
            f"{100 * row['accuracy']:.2f} ± {100 * row['ci95']:.2f}",
            str(row["paper"] or ""),
            str(row["target"] or ""),
            str(row["train_seed"]),
        )
    out.print(table)
    out.print(f"written: {path}")
    return 0
