"""What unlabelled examples bring: Ren et al. 2018, arXiv 1803.00676, on Omniglot with 10 % of the labels.

Each refinement of the prototypes is trained and measured with five unlabelled examples a class, without and
with as many of each of five classes that are not in the task; beside it prototypical networks that are
trained on the same labelled examples and shown no others. Both answer the same tasks, so that the gain has an
interval of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quickstudy.evaluation.evaluate import SEED
from quickstudy.outer import measure
from quickstudy.outer.config import TrainConfig
from quickstudy.outer.measure import Measurement
from quickstudy.outer.session import load_splits, threads
from quickstudy.recipes.parts import PartsRecipe
from quickstudy.recipes.recipe import Setting, about, trained

UNLABELLED, TASKS = 5, 1000
SUPERVISED = 94.62
"""The paper's prototypical networks, in percent at 5-way 1-shot."""


@dataclass(frozen=True)
class Refined:
    """One refinement of the prototypes.

    Args:
        refinement: as `SemiProtoNet` takes it.
        distractors: classes that appear among the unlabelled examples only.
        paper: percent at 5-way 1-shot, in the paper's table 1.
    """

    refinement: str
    distractors: int
    paper: float

    @property
    def name(self) -> str:
        """What `--only` calls it.

        >>> Refined("soft", 5, 95.01).name
        'soft/5'
        """
        return f"{self.refinement}/{self.distractors}"


@dataclass(frozen=True)
class SemiSupervisedRecipe(PartsRecipe[Refined]):
    """Prototypes with and without unlabelled examples, on the same tasks.

    Args:
        iterations: meta-steps of each.
    """

    title: str = "Omniglot, 10 % of the labels, 5 unlabelled examples a class: prototypes, 5-way 1-shot"
    source: str = "Ren et al. 2018, arXiv 1803.00676, table 1"
    iterations: int = 2000

    def rows(self, part: Refined, out: Path, setting: Setting) -> list[dict[str, Any]]:
        """One row: accuracies with and without unlabelled examples, and the gain."""
        # Shown also to who makes nothing of them, so that the tasks are the same.
        shown: dict[str, Any] = {"unlabelled": UNLABELLED, "distractors": part.distractors}
        configs = {
            "supervised": TrainConfig(learner="protonet", **self.options(setting)),
            part.name: TrainConfig(
                learner="semi-protonet",
                settings={"refinement": part.refinement},
                **self.options(setting),
                **shown,
            ),
        }
        found: list[Measurement] = []
        for name, config in configs.items():
            learner, config, run = trained(config, setting.runs / setting.name / name, name)
            test = config.problem(load_splits(config, run).test, seed=SEED, **shown)
            with threads(1):
                found.append(measure(learner, test, setting.tasks or TASKS))
        plain, refined = found
        gain = Measurement({"accuracy": refined.values["accuracy"] - plain.values["accuracy"]})
        measured = {"supervised_": plain, "": refined, "gain_": gain}
        return [
            {
                "part": part.name,
                "learner": part.refinement,
                "distractors": part.distractors,
                **{f"{k}accuracy": m.mean("accuracy") for k, m in measured.items()},
                **{f"{k}ci95": m.ci95("accuracy") for k, m in measured.items()},
                "paper": part.paper,
                "paper_supervised": SUPERVISED,
                "tasks": refined.tasks,
                **about(learner, run),
            }
        ]

    def options(self, setting: Setting) -> dict[str, Any]:
        """Of every run."""
        return {
            "data": "omniglot",
            "data_dir": setting.data_dir,
            "labelled": 0.1,
            "train_way": 5,
            "train_query": 1,
            "meta_batch": 8,
            "query": 5,
            "iterations": self.iterations,
            "schedule": "cosine",
            "threads": 1,
        }


def refinements() -> tuple[Refined, ...]:
    """The paper's, without and with distractors."""
    return (
        Refined("soft", 0, 97.25),
        Refined("distractor", 0, 97.68),
        Refined("masked", 0, 97.52),
        Refined("soft", 5, 95.01),
        Refined("distractor", 5, 97.17),
        Refined("masked", 5, 97.30),
    )
