"""Sinusoid regression (Finn et al. 2017, arXiv 1703.03400, section 5.1) beside pretraining on all tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quickstudy.learners import MAML
from quickstudy.nets import mlp
from quickstudy.outer import measure
from quickstudy.outer.seeds import seeded
from quickstudy.outer.session import threads
from quickstudy.recipes.recipe import Setting, about, provenance, trained_on
from quickstudy.tasks import Sinusoids

HIDDEN, INNER_LR, OUTER_LR, META_BATCH = (40, 40), 0.01, 1e-3, 25
RATES = (0.001, 0.003, 0.01, 0.02, 0.05, 0.1)


def sinusoid_maml(steps: int, seed: int = 0) -> MAML:
    """The paper's learner: 40-40 MLP, rate 0.01; with `steps=0` it is pretrained on all tasks instead."""
    with seeded(seed):
        return MAML(mlp(1, HIDDEN), way=1, inner_lr=INNER_LR, steps=steps)


@dataclass(frozen=True)
class SinusoidRecipe:
    """MAML and pretraining on all tasks, each measured after 0, 1 and 10 inner steps.

    Args:
        iterations: meta-steps of each.
        seed: of initial weights and tasks.
    """

    title: str = "sinusoids, MAML 10-shot, 40-40 MLP, inner rate 0.01; pretraining on all tasks beside it"
    source: str = "Finn et al. 2017, arXiv 1703.03400, section 5.1 (plotted only)"
    iterations: int = 15_000
    seed: int = 0

    def run(self, setting: Setting) -> dict[str, Any]:
        """Train both, measure both; mean squared errors with intervals."""
        with threads(1):  # nets this small only wait for each other on more
            return self.measured(setting)

    def measured(self, setting: Setting) -> dict[str, Any]:
        """Both learners, trained and measured."""
        n_tasks = setting.tasks or 1000
        # Three streams of tasks for each seed, none of them another seed's.
        training, validation, test = (
            Sinusoids(shot=10, query=query, seed=3 * self.seed + i) for i, query in enumerate((10, 100, 100))
        )
        rows, seconds = [], 0.0
        for name, steps in (("maml", 1), ("pretrained", 0)):
            learner = sinusoid_maml(steps, self.seed)
            run = trained_on(
                training,
                learner,
                setting.runs / f"sinusoid-{name}",
                {"data": "sinusoid", "learner": name, "iterations": self.iterations, "seed": self.seed},
                f"sinusoids, {name}",
                validation=validation,
                iterations=self.iterations,
                meta_batch=META_BATCH,
                outer_lr=OUTER_LR,
                schedule="constant",
                validation_tasks=200,
            )
            seconds += about(learner, run)["training_seconds"]
            for test_steps in (0, 1, 10):
                learner.steps = test_steps
                if name == "pretrained" and test_steps:
                    learner.inner_lr = best_rate(learner, validation)
                measured = measure(learner, test, n_tasks)
                rows.append(
                    {
                        "learner": name,
                        "steps": test_steps,
                        "mse": measured.mean("loss"),
                        "ci95": measured.ci95("loss"),
                        "inner_lr": learner.inner_lr,
                        "target": 0.5 if (name, test_steps) == ("maml", 1) else None,
                        "tasks": n_tasks,
                    }
                )
        return {
            **provenance(setting),
            "title": self.title,
            "published": self.source,
            "seeds": [self.seed],
            "training_seconds": round(seconds, 1),
            "config": {
                "iterations": self.iterations,
                "meta_batch": META_BATCH,
                "outer_lr": OUTER_LR,
                "inner_lr": INNER_LR,
                "body": list(HIDDEN),
                "shot": 10,
            },
            "results": rows,
        }


def best_rate(learner: MAML, validation: Sinusoids) -> float:
    """The fine-tuning rate with the smallest error on meta-validation, at the learner's number of steps."""
    errors = {}
    for rate in RATES:
        learner.inner_lr = rate
        errors[rate] = measure(learner, validation, 200).mean("loss")
    return min(errors, key=lambda rate: errors[rate])
