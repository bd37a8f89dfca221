"""What real use brings: other ways and shots than in training, unequal shots, wrong labels, a long tail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quickstudy.data import ClassDataset
from quickstudy.errors import TaskError, UserError
from quickstudy.evaluation.evaluate import SEED, evaluate
from quickstudy.learners import Learner
from quickstudy.outer.load_run import load_run
from quickstudy.outer.session import load_splits, threads
from quickstudy.recipes.learners import Part
from quickstudy.recipes.parts import PartsRecipe
from quickstudy.recipes.recipe import Setting
from quickstudy.tasks import ClassTasks, LongTailed, Mislabelled, TaskSource

TASKS = 200
Make = Callable[[ClassDataset], TaskSource]


def grid() -> dict[str, Make]:
    """The cells by name, each from the meta-test classes to its tasks.

    >>> list(grid())[:4]
    ['2-way 1-shot', '2-way 5-shot', '2-way 10-shot', '5-way 1-shot']
    """

    def plain(way: int, shot: int) -> Make:
        return lambda data: ClassTasks(data, way, shot, seed=SEED)

    cells = {f"{way}-way {shot}-shot": plain(way, shot) for way in (2, 5, 10, 20) for shot in (1, 5, 10)}
    return cells | {
        "5-way, 1 to 10 shots a class": lambda data: ClassTasks(data, 5, (1, 10), seed=SEED, ragged=True),
        "5-way 5-shot, 20 % wrong labels": lambda data: Mislabelled(ClassTasks(data, 5, 5, seed=SEED), 0.2),
        "5-way, shots 10 6 3 2 1": lambda data: LongTailed(ClassTasks(data, 5, 10, seed=SEED)),
    }


@dataclass(frozen=True)
class RealUseRecipe(PartsRecipe[Part]):
    """The runs of another recipe of parts, measured on tasks that are unlike those they were trained on.

    Args:
        of: the name of the recipe that trains them.
    """

    title: str = "trained on 5-way 1-shot tasks, tested on others: ways, shots, wrong labels, long tails"
    source: str = "no published table"
    of: str = "learners"

    def possible(self, part: Part, setting: Setting) -> bool:
        """Whether it was trained."""
        return (setting.runs / self.of / part.name / "summary.json").exists()

    def rows(self, part: Part, out: Path, setting: Setting) -> list[dict[str, Any]]:
        """One row for each cell."""
        learner, config, run = load_run(setting.runs / self.of / part.name, setting.data_dir)
        data, told = load_splits(config, run).test, {"part": part.name, "learner": part.learner}
        with threads(1):
            return [
                {**told, "cell": cell, **reached(learner, make, data, setting.tasks or TASKS)}
                for cell, make in grid().items()
            ]

    def run(self, setting: Setting) -> dict[str, Any]:
        """As every recipe of parts.

        Raises:
            UserError: nothing was trained.
        """
        found = super().run(setting)
        if not found["results"]:
            raise UserError(
                f"there are no runs under {setting.runs / self.of}: quickstudy recipe run {self.of}"
            )
        return found


def reached(learner: Learner, make: Make, data: ClassDataset, n_tasks: int) -> dict[str, Any]:
    """Accuracy on such tasks, or why the learner cannot take them."""
    try:
        result = evaluate(learner, make(data), n_tasks, progress=True)
    except TaskError as error:
        return {"accuracy": None, "ci95": None, "why": str(error)}
    return {"accuracy": result.accuracy, "ci95": result.ci95, "tasks": result.tasks}
