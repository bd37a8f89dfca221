"""The published experiments this library answers to."""

from __future__ import annotations

from dataclasses import dataclass

from quickstudy.errors import unknown
from quickstudy.outer.config import TrainConfig


@dataclass(frozen=True)
class Measure:
    """One number to measure: on which tasks, what the paper reports, and what must be reached.

    Args:
        way, shot, query: of the test tasks; None is the config's.
        statistics: the normalisation mode; None is the run's own.
        paper: the published accuracy in percent (or None).
        target: what a run here should reach, in percent.
        tasks: how many test tasks.
    """

    way: int | None = None
    shot: int | None = None
    query: int | None = None
    statistics: str | None = None
    paper: float | None = None
    target: float | None = None
    tasks: int = 1000


@dataclass(frozen=True)
class Recipe:
    """An experiment: how to train, what to measure.

    Args:
        title: what it shows.
        source: where the published number stands.
        config: the run.
        measures: the numbers.
        seeds: one run for each.
    """

    title: str
    source: str
    config: TrainConfig
    measures: tuple[Measure, ...]
    seeds: tuple[int, ...] = (0,)
    note: str = ""
    floors: bool = True



SNELL = "Snell et al. 2017, arXiv 1703.05175, table 1"
FINN = "Finn et al. 2017, arXiv 1703.03400, table 1"

RECIPES: dict[str, Recipe] = {
    "omniglot-protonet": Recipe(
        title="Omniglot 1028/172/423 with rotations, Prototypical, 4-conv 64, running averages",
        source=SNELL,
        config=TrainConfig(
            data="omniglot",
            learner="protonet",
            train_way=60,
            train_query=5,
            iterations=2500,
            norm="running",
            validate_every=250,
            threads=1,
        ),
        measures=(
            Measure(5, 1, statistics="running", paper=98.8, target=98.0),
            Measure(5, 5, statistics="running", paper=99.7, target=99.4),
            Measure(20, 1, statistics="running", paper=96.0, target=94.5),
            Measure(5, 1, statistics="support"),
            Measure(5, 1, statistics="batch"),
        ),
    ),
    "omniglot-authors-protonet": Recipe(
        title="Omniglot background → evaluation alphabets, Prototypical, 4-conv 64, running averages",
        source="the authors' split: no published number for this learner",
        config=TrainConfig(
            data="omniglot",
            split="authors",
            learner="protonet",
            train_way=60,
            train_query=5,
            iterations=1500,
            norm="running",
            validate_every=250,
            threads=1,
        ),
        measures=(Measure(5, 1, statistics="running"), Measure(20, 1, statistics="running")),
    ),
    "omniglot-maml": Recipe(
        title="Omniglot 1028/172/423 with rotations, MAML, 4-conv 64, one inner step, transductive",
        source=FINN,
        config=TrainConfig(
            data="omniglot",
            learner="maml",
            train_query=5,
            meta_batch=8,
            iterations=4000,
            norm="batch",
            validate_every=250,
            settings={"inner_lr": 0.4, "steps": 1, "adapt": "all"},
            threads=1,
        ),
        measures=(
            Measure(5, 1, statistics="batch", paper=98.7, target=97.5),
            Measure(5, 1, statistics="support"),
            Measure(5, 1, statistics="running"),
        ),
    ),
    "quickdraw-maml": Recipe(
        title="Quick, Draw! 207/69/69, 20 drawings a class, MAML with 5 inner steps, 20 channels, transductive",
        source="the fastforwardlabs learning-to-learn report, 59.4 % on its own draw of the data",
        config=TrainConfig(
            data="quickdraw",
            samples_per_class=20,
            learner="maml",
            query=1,
            train_query=1,
            channels=20,
            meta_batch=10,
            outer_lr=5e-4,
            iterations=5000,
            norm="batch",
            validate_every=250,
            settings={"inner_lr": 0.005, "steps": 5, "adapt": "filters"},
            threads=1,
        ),
        measures=(Measure(5, 1, 1, statistics="batch", paper=59.4, target=55.0, tasks=5000),),
        seeds=(0, 1, 2),
    ),
}


def recipe(name: str) -> Recipe:
    """The recipe with this name."""
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]
