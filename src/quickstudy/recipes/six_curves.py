"""The six runs of two figures of the fastforwardlabs learning-to-learn report: MAML on Quick, Draw!, 5 and 10
ways at 1, 5 and 10 shots, 20 drawings a class. The figures, before the published curves, lie beside the runs;
`quickstudy report` has them too.

Theirs: 20 channels, 5 inner steps of 0.005, 10 tasks a meta-step, Adam at 5e-4, 50 epochs of 100 meta-steps,
answers that depend on the other queries.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quickstudy.evaluation.evaluate import SEED, evaluate
from quickstudy.evaluation.reports.pictures import EPOCH, published, six_curves
from quickstudy.outer.config import TrainConfig
from quickstudy.outer.run_folder import RunFolder
from quickstudy.outer.session import load_splits, threads
from quickstudy.recipes.parts import PartsRecipe
from quickstudy.recipes.recipe import Setting, about, trained

EPOCHS, SAMPLES, TASKS = 50, 20, 1000


@dataclass(frozen=True)
class Problem:
    """The tasks of one run."""

    way: int
    shot: int

    @property
    def name(self) -> str:
        """What `--only` calls it.

        >>> Problem(5, 1).name
        '5-way-1-shot'
        """
        return f"{self.way}-way-{self.shot}-shot"

    def config(self, data_dir: Path | None) -> TrainConfig:
        """The run's options."""
        return TrainConfig(
            data="quickdraw",
            data_dir=data_dir,
            samples_per_class=SAMPLES,
            augment="none",
            learner="maml",
            way=self.way,
            shot=self.shot,
            query=self.shot,
            train_query=self.shot,
            channels=20,
            norm="batch",
            meta_batch=10,
            outer_lr=5e-4,
            schedule="constant",
            iterations=EPOCHS * EPOCH,
            validate_every=EPOCH,
            validation_tasks=100,
            threads=1,
            settings={"inner_lr": 0.005, "steps": 5, "inner_params": "filters"},
        )


@dataclass(frozen=True)
class SixCurvesRecipe(PartsRecipe[Problem]):
    """One run for each way and shot, and its accuracy on meta-test beside the published one."""

    parts: tuple[Problem, ...] = tuple(Problem(way, shot) for way in (5, 10) for shot in (1, 5, 10))
    title: str = "Quick, Draw! 207/69/69, 20 drawings a class, MAML: 5 and 10 ways at 1, 5 and 10 shots"
    source: str = "the fastforwardlabs learning-to-learn report, on its own draw of the data"

    def rows(self, part: Problem, out: Path, setting: Setting) -> list[dict[str, Any]]:
        """Train, and measure on meta-test, transductive as theirs."""
        with threads(1):
            learner, config, run = trained(part.config(setting.data_dir), out, part.name)
            source = config.problem(load_splits(config, run).test, seed=SEED)
            result = evaluate(learner, source, setting.tasks or TASKS, progress=True)
        asked = (part.way, part.shot, config.samples_per_class)
        (paper,) = (
            round(100 * r["meta_test"]["accuracies_after"], 1)
            for r in published()["runs"]
            if (r["way"], r["shot"], r["samples_per_class"]) == asked
        )
        self.draw(part.way, out.parent)
        return [{"part": part.name, **result.json(), "paper": paper, **about(learner, run)}]

    def draw(self, way: int, runs: Path) -> None:
        """The figure of one way, of the runs that there are, beside them: runs/quickdraw-curves/5-way.png."""
        folders = {part.shot: RunFolder(runs / part.name) for part in self.parts if part.way == way}
        ours = {shot: list(run.records()) for shot, run in folders.items() if not run.vacant}
        six_curves(ours, way, SAMPLES, runs / f"{way}-way.png")
