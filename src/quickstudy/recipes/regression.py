"""Functions learned from a few points: every learner that regresses, each with the same minutes.

Sinusoids as in Finn et al. 2017 (arXiv 1703.03400); five kinds of functions mixed as in Vuorio et al. 2018
(arXiv 1812.07172); draws from Gaussian processes, beside whose exact posterior a learner can only come near,
and Omniglot's pictures, completed from some of their pixels (Garnelo et al. 2018, arXiv 1807.01613).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from quickstudy.data import load
from quickstudy.evaluation.completed import completion_picture
from quickstudy.evaluation.fit import fit_picture
from quickstudy.evaluation.function_floors import FLOORS, floor
from quickstudy.evaluation.plots import training_curve
from quickstudy.evaluation.search import choose_settings
from quickstudy.learners import Learner, build
from quickstudy.nets import mlp, native
from quickstudy.outer import measure
from quickstudy.outer.measure import Measurement
from quickstudy.outer.run_folder import RunFolder
from quickstudy.outer.seeds import seeded
from quickstudy.outer.session import threads
from quickstudy.outer.strategy import settle_strategy
from quickstudy.recipes.budget import shared, step_seconds, validation_seconds
from quickstudy.recipes.parts import PartsRecipe
from quickstudy.recipes.recipe import Setting, about, trained_on
from quickstudy.tasks import Completion, FiveModes, GaussianProcesses, Sinusoids, TaskSource

TASKS, VALIDATION_TASKS, QUERY = 1000, 200, 100
"""Tasks measured at the end, and in a validation; the points they are judged at."""
GUESS, CLIP = 10_000, 10.0
"""A first guess of the number of meta-steps, and the largest norm of a meta-gradient."""
DESCENDING = (
    "maml",
    "fomaml",
    "anil",
    "boil",
    "meta-sgd",
    "maml++",
    "alpha-maml",
    "mmaml",
)
"""Those whose inner loop is MAML's, so that they are given the paper's rate for sinusoids, and five steps."""


@dataclass(frozen=True)
class Family:
    """Tasks of one kind, and by which nets they are learned.

    Args:
        source: part (0 meta-training, 1 meta-validation, 2 meta-test), shots and queries → tasks.
        body: makes the embedding of a point.
        shot: of meta-training.
        shots: that are measured.
        learners: who learns them, with their options.
    """

    source: Callable[[Path | None, int, int, int], TaskSource]
    body: Callable[[], nn.Module]
    shot: int
    shots: tuple[int, ...]
    learners: Mapping[str, Mapping[str, Any]]
    meta_batch: int = 25


def functions(kind: type[Sinusoids | FiveModes | GaussianProcesses]) -> Callable[..., TaskSource]:
    """The tasks of a family of functions; each part has its own."""

    def source(data_dir: Path | None, part: int, shot: int, query: int) -> TaskSource:
        return kind(shot=shot, query=query, seed=part)

    return source


def pictures(data_dir: Path | None, part: int, shot: int, query: int | None) -> Completion:
    """Omniglot's pictures to complete, of classes that are each part's own."""
    splits = load("omniglot", root=data_dir).split("vinyals")
    return Completion((splits.train, splits.val, splits.test)[part], shot=shot, query=query, seed=part)


FAMILIES = {
    "sinusoid": Family(
        functions(Sinusoids),
        lambda: mlp(1, (40, 40)),
        shot=10,
        shots=(5, 10),
        learners={
            **{name: {"inner_lr": 0.01, "steps": 5} for name in DESCENDING},
            "imaml": {"inner_lr": 0.01},
            **{
                name: {} for name in ("reptile", "r2d2", "mann", "lstm", "snail", "cnp", "anp", "transformer")
            },
        },
    ),
    "five-modes": Family(
        functions(FiveModes),
        lambda: mlp(1, (100, 100, 100)),
        shot=10,
        shots=(5, 10),
        learners={name: {"inner_lr": 0.001, "steps": 5} for name in ("maml", "mmaml")} | {"anp": {}},
    ),
    "gaussian-process": Family(
        functions(GaussianProcesses),
        lambda: mlp(1, (128, 128)),
        shot=10,
        shots=(5, 10),
        learners={"maml": {"inner_lr": 0.01, "steps": 5}, "cnp": {}, "anp": {}, "transformer": {}},
    ),
    "completion": Family(
        pictures,
        lambda: mlp(2, (128, 128)),
        shot=100,
        shots=(10, 50, 200),
        learners={"cnp": {}, "anp": {}},
        meta_batch=16,
    ),
}


@dataclass(frozen=True)
class Fit:
    """One learner on one family of tasks."""

    family: str
    learner: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What `--only` calls it.

        >>> Fit("sinusoid", "maml").name
        'sinusoid/maml'
        """
        return f"{self.family}/{self.learner}"


@dataclass(frozen=True)
class RegressionRecipe(PartsRecipe[Fit]):
    """Squared errors, and log-likelihoods where a learner states a density, beside simple answers.

    Inner steps and rates in use are chosen on meta-validation.

    Args:
        seconds: for how long each is trained.
    """

    title: str = "every learner that regresses, 10 minutes each: functions and pictures from some points"
    source: str = "the papers plot most of these"
    seconds: float = 600.0

    def rows(self, part: Fit, out: Path, setting: Setting) -> list[dict[str, Any]]:
        """One row for each number of shots."""
        family, n_tasks = FAMILIES[part.family], setting.tasks or TASKS
        test = {shot: family.source(setting.data_dir, 2, shot, QUERY) for shot in family.shots}
        told: dict[str, Any] = {"part": part.name, "data": part.family, "learner": part.learner}
        if part.learner in FLOORS:
            answer = FLOORS[part.learner]
            found = {shot: floor(answer, source, n_tasks) for shot, source in test.items()}
            told["kind"] = "control"
        else:
            with threads(1):  # nets this small only wait for each other on more
                learner, run = self.trained(part, out, setting)
                validation = family.source(setting.data_dir, 1, family.shot, QUERY)
                told["chosen"], _ = choose_settings(learner, validation, VALIDATION_TASKS)
                found = {shot: measure(learner, source, n_tasks) for shot, source in test.items()}
            self.draw(part, learner, run, test, setting)
            told |= {"kind": "learner", "trained": f"{family.shot}-shot", **about(learner, run)}
        return [{**told, "shot": shot, **numbers(measured)} for shot, measured in found.items()]

    def draw(
        self, part: Fit, learner: Learner, run: RunFolder, test: Mapping[int, TaskSource], setting: Setting
    ) -> None:
        """The training curve, and the fit of a task; of pictures, some completed."""
        training_curve(list(run.records()), run.path / "curve.png")
        if part.family == "completion":
            whole = {shot: pictures(setting.data_dir, 2, shot, None) for shot in test}
            completion_picture(learner, whole, run.path / "completed.png")
        else:
            task = next(test[max(test)].batch(np.array([0])).unbatch())
            fit_picture(learner, task, run.path / "fit.png")

    def trained(self, part: Fit, out: Path, setting: Setting) -> tuple[Learner, RunFolder]:
        """A part's learner, trained as long as its budget allows, and its run folder."""
        family, learner = FAMILIES[part.family], made(part)
        training, validation = (
            family.source(setting.data_dir, i, family.shot, query) for i, query in enumerate((20, QUERY))
        )
        config: dict[str, Any]
        if (out / "config.json").exists():  # what fits was measured when it was begun
            config = RunFolder.open(out).config
        else:
            config = {"data": part.family, "learner": part.learner, "shot": family.shot}
            config |= {
                "settings": dict(part.settings),
                **self.within(learner, training, validation, family.meta_batch),
            }
            learner = made(part)  # as it was before its steps were timed
        run = trained_on(
            training,
            learner,
            out,
            config,
            part.name,
            validation=validation,
            iterations=config["iterations"],
            validate_every=config["validate_every"],
            meta_batch=family.meta_batch,
            clip=CLIP,
            validation_tasks=VALIDATION_TASKS,
        )
        return learner, run

    def within(
        self, learner: Learner, training: TaskSource, validation: TaskSource, size: int
    ) -> dict[str, int]:
        """How many meta-steps take the budget, and after how many to validate."""
        with native.settled(GUESS * size):
            how = settle_strategy(learner, training, size, learner.outer.strategy, GUESS)
            step = step_seconds(learner, training, size, how)
            checking = validation_seconds(learner, validation, VALIDATION_TASKS, how)
        iterations, every = shared(self.seconds, step, checking)
        return {"iterations": iterations, "validate_every": every}


def made(part: Fit) -> Learner:
    """A part's learner, as it is before training."""
    with seeded(0):
        return build(part.learner, FAMILIES[part.family].body(), way=1, classes=1, settings=part.settings)


def numbers(measured: Measurement) -> dict[str, Any]:
    """The means over tasks, with intervals."""
    found: dict[str, Any] = {
        "mse": measured.mean("loss"),
        "ci95": measured.ci95("loss"),
        "tasks": measured.tasks,
    }
    if "log_likelihood" in measured.values:
        found["log_likelihood"] = measured.mean("log_likelihood")
        found["log_likelihood_ci95"] = measured.ci95("log_likelihood")
    return found


def fits() -> tuple[Fit, ...]:
    """Every learner and every simple answer on every family."""
    return tuple(
        Fit(name, learner, settings)
        for name, family in FAMILIES.items()
        for learner, settings in {
            **family.learners,
            "support-mean": {},
            "nearest": {},
            **({"exact": {}} if name == "gaussian-process" else {}),
            **({"mean-picture": {}} if name == "completion" else {}),
        }.items()
    )
