"""`quickstudy recipe`: the published experiments, trained, measured, written down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console
from rich.table import Column, Table

from quickstudy.app.options import parse
from quickstudy.errors import UserError
from quickstudy.files import write_json
from quickstudy.recipes import RECIPES, Setting, recipe

EXAMPLES = """Published experiments: train as the paper says, measure, write the numbers with what made them.

Examples:
  quickstudy recipe list
  quickstudy recipe run omniglot-protonet        trains into runs/, writes results/omniglot-protonet.json
  quickstudy recipe run learners --only omniglot/maml omniglot/protonet

An interrupted recipe goes on where it stopped."""


SHOWN = (
    "part",
    "learner",
    "cell",
    "presentation",
    "factor",
    "distractors",
    "split",
    "way",
    "shot",
    "steps",
    "statistics",
    "accuracy",
    "mse",
    "length",
    "wrong_bits",
    "ci95",
    "log_likelihood",
    "supervised_accuracy",
    "gain_accuracy",
    "gain_ci95",
    "paper",
    "target",
    "train_seed",
)


@dataclass(frozen=True)
class RecipeOptions:
    """What to do.

    Args:
        action: list or run.
        name: the recipe, for run.
        runs: where run folders go.
        results: where the JSON goes.
        tasks: test tasks instead of the recipe's own number.
        only: of a recipe of many parts only these, such as omniglot/maml of the recipe learners.
        no_floors: leave the controls out: they take as long again.
        data_dir: where data lies; by default $QUICKSTUDY_DATA, then the cache folder.
    """

    action: tyro.conf.Positional[Literal["list", "run"]]
    name: tyro.conf.Positional[str] = ""
    runs: Path = Path("runs")
    results: Path = Path("results")
    tasks: int | None = None
    only: tuple[str, ...] = ()
    no_floors: bool = False
    data_dir: Path | None = None


def main(args: Sequence[str]) -> int:
    """Parse, list or run."""
    given = parse(RecipeOptions, args, "recipe", EXAMPLES)
    out = Console(highlight=False)
    if given.action == "list":
        table = Table(Column("recipe", no_wrap=True), "what it shows", "published")
        for name, plan in RECIPES.items():
            table.add_row(name, plan.title, plan.source)
        out.print(table)
        return 0
    if not given.name:
        raise UserError(f"recipe run needs a name (known: {', '.join(RECIPES)})")
    path = given.results / f"{given.name}.json"
    setting = Setting(
        given.name, given.runs, given.tasks, not given.no_floors, given.data_dir, given.only, before=path
    )
    result = recipe(given.name).run(setting)
    try:
        given.results.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {given.results}: {error.strerror}") from error
    write_json(path, result)
    known = {k for row in result["results"] for k in row}
    known -= {"learner"} if "part" in known else set()  # a part's name says it
    shown = [k for k in SHOWN if k in known]
    table = Table(*shown)
    for row in result["results"]:
        table.add_row(*(shown_as(row.get(k)) for k in shown))
    out.print(table)
    out.print(f"written: {path}")
    return 0


def shown_as(value: object) -> str:
    """A table cell."""
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
