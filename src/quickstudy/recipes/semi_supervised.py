"""What unlabelled examples bring: Ren et al. 2018, arXiv 1803.00676, on Omniglot with 10 % of the labels.

Each refinement of the prototypes is trained and measured with five unlabelled examples a class, without and
with as many of each of five classes that are not in the task; beside it prototypical networks that are
trained on the same labelled examples and shown no others. All answer the same tasks, so that gains have
intervals of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from quickstudy.outer import measure
from quickstudy.outer.config import TrainConfig
from quickstudy.outer.measure import Measurement
from quickstudy.outer.session import load_splits, threads
from quickstudy.recipes.recipe import Setting, about, provenance, trained

UNLABELLED = 5
PAPER = {
    (None, 0): 94.62,
    (None, 5): 94.62,
    ("soft", 0): 97.25,
    ("distractor", 0): 97.68,
    ("masked", 0): 97.52,
    ("soft", 5): 95.01,
    ("distractor", 5): 97.17,
    ("masked", 5): 97.30,
}
"""Percent at 5-way 1-shot, by refinement and number of distractor classes: their table 1."""


@dataclass(frozen=True)
class SemiSupervisedRecipe:
    """Prototypes with and without unlabelled examples, on the same tasks.

    Args:
        iterations: meta-steps of each.
    """

    title: str = "Omniglot, 10 % of the labels, 5 unlabelled examples a class: prototypes, 5-way 1-shot"
    source: str = "Ren et al. 2018, arXiv 1803.00676, table 1"
    iterations: int = 2000

    def run(self, setting: Setting) -> dict[str, Any]:
        """Train all, measure all; accuracies and gains with intervals."""
        n_tasks = setting.tasks or 1000
        rows: list[dict[str, Any]] = []
        seconds: dict[str, float] = {}  # of each run, the supervised one of which is measured twice
        plain: dict[int, Tensor] = {}
        for refinement, distractors in PAPER:
            config = self.config(refinement, distractors, setting)
            name = f"{refinement or 'supervised'}{f'-{distractors}' if refinement else ''}"
            learner, config, run = trained(config, setting.runs / setting.name / name, name)
            seconds[name] = about(learner, run)["training_seconds"]
            # Shown also to who makes nothing of them, so that the tasks are the same.
            shown = {"unlabelled": UNLABELLED, "distractors": distractors}
            test = config.problem(load_splits(config, run).test, seed=2, **shown)
            with threads(1):
                found = measure(learner, test, n_tasks)
            right = found.values["accuracy"]
            plain.setdefault(distractors, right)  # the first of each: without refinement
            gain = Measurement({"accuracy": right - plain[distractors]})
            rows.append(
                {
                    "learner": refinement or "supervised",
                    "distractors": distractors,
                    "accuracy": found.mean("accuracy"),
                    "ci95": found.ci95("accuracy"),
                    "gain": gain.mean("accuracy"),
                    "gain_ci95": gain.ci95("accuracy"),
                    "paper": PAPER[refinement, distractors],
                    "tasks": n_tasks,
                }
            )
        return {
            **provenance(setting),
            "title": self.title,
            "published": self.source,
            "seeds": [0],
            "training_seconds": round(sum(seconds.values()), 1),
            "config": self.config(None, 0, setting).json(),
            "results": rows,
        }

    def config(self, refinement: str | None, distractors: int, setting: Setting) -> TrainConfig:
        """One run; without refinement it is shown no unlabelled examples in training."""
        return TrainConfig(
            data="omniglot",
            data_dir=setting.data_dir,
            learner="semi-protonet" if refinement else "protonet",
            settings={"refinement": refinement} if refinement else {},
            labelled=0.1,
            train_way=5,
            train_query=1,
            meta_batch=8,
            query=5,
            iterations=self.iterations,
            schedule="cosine",
            unlabelled=UNLABELLED if refinement else 0,
            distractors=distractors if refinement else 0,
            threads=1,
        )
