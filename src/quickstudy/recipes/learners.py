"""Every learner on the same data, with the same minutes: what each makes of them, at every way it allows."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quickstudy.data import Splits
from quickstudy.errors import TaskError
from quickstudy.evaluation.evaluate import SEED, Evaluation, evaluate
from quickstudy.learners import CONTROLS, LEARNERS, Learner
from quickstudy.outer.config import TrainConfig
from quickstudy.outer.run_folder import RunFolder
from quickstudy.outer.session import load_splits, threads
from quickstudy.recipes.budget import within
from quickstudy.recipes.parts import PartsRecipe
from quickstudy.recipes.recipe import Setting, about, trained

DATA: dict[str, dict[str, Any]] = {
    "omniglot": {"data": "omniglot"},
    "quickdraw": {"data": "quickdraw", "samples_per_class": 20, "augment": "drawing"},
    "quickdraw-plain": {"data": "quickdraw", "samples_per_class": 20, "augment": "none"},
}
"""Where each part trains; Quick, Draw! with and without augmentation."""
PROBLEMS: dict[str, tuple[tuple[int, int], ...]] = {
    "omniglot": ((5, 1), (5, 5), (20, 1)),
    "quickdraw": ((5, 1), (5, 5)),
    "quickdraw-plain": ((5, 1), (5, 5)),
}
"""(way, shot) of the tasks that each part is measured on."""
RISING = 0.01
"""A curve still rises whose last quarter is that much above the one before, on meta-validation."""


@dataclass(frozen=True)
class Part:
    """One learner on one data set.

    Args:
        learner: its name.
        data: a name of `DATA`.
        options: of the run, besides those of all.
        settings: of the learner.
        label: what sets it apart from others of the same learner and data.
    """

    learner: str
    data: str
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""

    @property
    def name(self) -> str:
        """What `--only` calls it.

        >>> Part("maml", "omniglot").name
        'omniglot/maml'
        """
        return "/".join(word for word in (self.data, self.learner, self.label) if word)

    def config(self, data_dir: Path | None) -> TrainConfig:
        """The run's options, but for how long it takes."""
        usual = {"channels": 32, "threads": 1, "device": "cpu", "way": 5, "shot": 1, "data_dir": data_dir}
        given = {**usual, **DATA[self.data], **self.options}
        return TrainConfig(learner=self.learner, settings=self.settings, **given)


@dataclass(frozen=True)
class LearnersRecipe(PartsRecipe[Part]):
    """One training run for each learner and data set, of the same length in time on one processor.

    Args:
        seconds: the budget of each.
    """

    title: str = "every learner on 5-way 1-shot tasks, trained at its own way: 32 channels, 10 minutes each"
    source: str = "the papers' numbers are of longer training and wider nets"
    seconds: float = 600.0

    def rows(self, part: Part, out: Path, setting: Setting) -> list[dict[str, Any]]:
        """Train one part as long as its budget allows, and measure it."""
        config = part.config(setting.data_dir)
        if (out / "config.json").exists():  # what fits was measured when it was begun
            begun = RunFolder.open(out).config
            config = dataclasses.replace(config, **{k: begun[k] for k in ("iterations", "validate_every")})
        else:
            config = within(config, self.seconds)
        with threads(1):
            return rows_of(part, *trained(config, out, part.name), setting.tasks or TASKS)


TASKS = 1000


def rows_of(
    part: Part, learner: Learner, config: TrainConfig, run: RunFolder, n_tasks: int
) -> list[dict[str, Any]]:
    """One row for each problem; for the first also one by the queries' own statistics, and one on the classes
    of meta-training."""
    splits = load_splits(config, run)
    told = {
        "part": part.name,
        "label": part.label,
        "learner": part.learner,
        "kind": "control" if part.learner in CONTROLS else "learner",
        "training": config.plain_tasks(splits.train).describe(),
        "augment": config.augment,
        "norm": config.norm,
        "unlabelled": config.unlabelled,
        "settings": {k: v for k, v in config.settings.items() if isinstance(v, (str, int, float))},
        "rising": rising([r.get("val_accuracy") for r in run.records()]),
        **about(learner, run),
    }
    rows = []
    for way, shot in PROBLEMS[part.data]:
        cell = {**told, "split": "test", "way": way, "shot": shot}
        try:
            rows.append({**cell, **reached(learner, config, run, splits, n_tasks, way=way, shot=shot)})
        except TaskError as error:  # its head answers fewer ways
            rows.append({**cell, "accuracy": None, "ci95": None, "why": str(error)})
    way, shot = PROBLEMS[part.data][0]
    if "batch" in learner.modes and learner.statistics != "batch":
        found = reached(learner, config, run, splits, n_tasks, statistics="batch", way=way, shot=shot)
        rows.append({**told, "split": "test", **found})
    found = reached(learner, config, run, splits, n_tasks, on="train", way=way, shot=shot)
    rows.append({**told, "split": "train", **found})
    return rows


def reached(
    learner: Learner,
    config: TrainConfig,
    run: RunFolder,
    splits: Splits,
    n_tasks: int,
    *,
    on: str = "test",
    statistics: str | None = None,
    **problem: int,
) -> dict[str, Any]:
    """The numbers of one evaluation."""
    source = config.problem(getattr(splits, on), seed=SEED, **problem)
    strategy = run.config.get("strategy")
    result: Evaluation = evaluate(
        learner, source, n_tasks, statistics=statistics, strategy=strategy, progress=True
    )
    return result.json()


def rising(accuracies: list[float | None]) -> bool:
    """Whether a run's validation accuracy was still rising at its end.

    >>> rising([0.2, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.84]), rising([0.2, 0.5, 0.7, 0.8, 0.8, 0.8, 0.8, 0.8])
    (True, False)
    """
    known = [a for a in accuracies if a is not None]
    quarter = len(known) // 4
    if not quarter:
        return False
    last, before = known[-quarter:], known[-2 * quarter : -quarter]
    return statistics.mean(last) - statistics.mean(before) > RISING


BESIDE = ("maml", "protonet", "transformer")
"""One of each kind, trained without augmentation too."""


def parts() -> tuple[Part, ...]:
    """Every learner and every control on every data set, as it is usually trained."""
    return tuple(
        Part(name, data)
        for data in DATA
        for name in (*LEARNERS, *CONTROLS)
        if data != "quickdraw-plain" or name in BESIDE
    )


def variants() -> tuple[Part, ...]:
    """The choices that learners leave, on Omniglot: one at a time from what is usual."""
    choices: dict[str, dict[str, dict[str, Any]]] = {
        "protonet": {"cosine": {"distance": "cosine"}, "temperature-4": {"temperature": 4.0}},
        "matching": {"euclidean": {"distance": "euclidean"}, "full-context": {"full_context": True}},
        "siamese": {"cosine": {"head": "cosine"}},
        "relation": {"mse": {"objective": "mse"}},
        "semi-protonet": {kind: {"refinement": kind} for kind in ("soft", "distractor")},
        "maml++": {
            f"without-{switch.replace('_', '-')}": {switch: False}
            for switch in ("multi_step_loss", "derivative_annealing", "learned_rates", "per_step_norm")
        },
        "mann": {"strings": {"labels": "strings"}},
    }
    return (
        *(
            Part(learner, "omniglot", settings=settings, label=label)
            for learner, labelled in choices.items()
            for label, settings in labelled.items()
        ),
        Part("protonet", "omniglot", {"train_way": 5}, label="trained-5-way"),
        Part("protonet", "omniglot", {"train_way": 60}, label="trained-60-way"),
    )


def generalising() -> tuple[Part, ...]:
    """With a quarter and half of the classes for meta-training, and with a deeper body; with all 207 classes
    and the usual body they are among `parts`."""
    kinds: dict[str, dict[str, Any]] = {
        **{f"{classes}-classes": {"train_classes": classes} for classes in (52, 104)},
        "resnet": {"body": "resnet", "channels": 16},
    }
    return tuple(
        Part(learner, "quickdraw", options, label=label)
        for learner in ("maml", "protonet", "simpleshot")
        for label, options in kinds.items()
    )
