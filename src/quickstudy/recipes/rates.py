"""Rates that are ten times too low or too high: MAML with them, and Alpha MAML, which adapts them.

Behl et al. 2019, arXiv 1905.07435. Both rates, of the inner loop and of the meta-optimiser, are off by one
factor; what counts is how much of what MAML loses by it Alpha MAML regains.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quickstudy.evaluation.evaluate import SEED, evaluate
from quickstudy.outer.config import TrainConfig
from quickstudy.outer.session import load_splits, threads
from quickstudy.recipes.parts import PartsRecipe
from quickstudy.recipes.recipe import Setting, about, trained

INNER_LR, OUTER_LR = 0.4, 1e-3
TASKS = 600


@dataclass(frozen=True)
class OffBy:
    """One learner from rates that are off by a factor."""

    learner: str
    factor: float
    seed: int

    @property
    def name(self) -> str:
        """What `--only` calls it.

        >>> OffBy("maml", 0.1, 2).name
        'maml/0.1/2'
        """
        return f"{self.learner}/{self.factor:g}/{self.seed}"


@dataclass(frozen=True)
class RatesRecipe(PartsRecipe[OffBy]):
    """Accuracies by learner, factor and seed; then the share that was regained, by factor.

    Args:
        iterations: meta-steps of each.
    """

    title: str = "Omniglot 5-way 1-shot from rates ten times too low and too high: MAML, Alpha MAML"
    source: str = "Behl et al. 2019, arXiv 1905.07435 (other tasks)"
    iterations: int = 600

    def rows(self, part: OffBy, out: Path, setting: Setting) -> list[dict[str, Any]]:
        """The part's accuracy on meta-test tasks."""
        config = TrainConfig(
            data="omniglot",
            data_dir=setting.data_dir,
            learner=part.learner,
            seed=part.seed,
            channels=32,
            iterations=self.iterations,
            validate_every=max(1, self.iterations // 6),
            outer_lr=part.factor * OUTER_LR,
            schedule="constant",
            settings={"inner_lr": part.factor * INNER_LR, "steps": 1},
            threads=1,
        )
        learner, config, run = trained(config, out, part.name)
        test = config.problem(load_splits(config, run).test, seed=SEED)
        with threads(1):
            found = evaluate(learner, test, setting.tasks or TASKS, progress=True)
        told = {"part": part.name, "learner": part.learner, "factor": part.factor, "train_seed": part.seed}
        return [told | about(learner, run) | found.json()]

    def run(self, setting: Setting) -> dict[str, Any]:
        """As every recipe of parts; and the means over seeds, where all of them were measured."""
        found = super().run(setting)
        means: dict[tuple[str, float], float] = {}
        for learner, factor in dict.fromkeys((part.learner, part.factor) for part in self.parts):
            same = [r for r in found["results"] if (r["learner"], r["factor"]) == (learner, factor)]
            if len(same) == sum((part.learner, part.factor) == (learner, factor) for part in self.parts):
                means[learner, factor] = statistics.mean(r["accuracy"] for r in same)
        return found | {"regained": regained(means)}


def regained(means: dict[tuple[str, float], float]) -> dict[str, float]:
    """By factor: of the accuracy that MAML loses by it, the share that Alpha MAML has more; none where MAML
    loses nothing.

    >>> regained({("maml", 1.0): 0.9, ("maml", 10.0): 0.5, ("alpha-maml", 10.0): 0.8})
    {'10': 0.75}
    """
    right = means.get(("maml", 1.0))
    return {
        f"{factor:g}": round((mean - means["maml", factor]) / (right - means["maml", factor]), 3)
        for (learner, factor), mean in means.items()
        if learner == "alpha-maml" and right is not None and right > means.get(("maml", factor), right)
    }


def off_by() -> tuple[OffBy, ...]:
    """MAML at its usual rates and both learners at others, three seeds each."""
    kinds = [("maml", 1.0), *((name, factor) for factor in (0.1, 10.0) for name in ("maml", "alpha-maml"))]
    return tuple(OffBy(name, factor, seed) for name, factor in kinds for seed in range(3))
