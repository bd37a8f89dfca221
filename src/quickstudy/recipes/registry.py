"""The published experiments this library answers to."""

from __future__ import annotations

from typing import Any

from quickstudy.errors import unknown
from quickstudy.outer.config import TrainConfig
from quickstudy.recipes.copy import CopyRecipe, nets
from quickstudy.recipes.learners import LearnersRecipe, generalising, parts, variants
from quickstudy.recipes.presentations import PresentationsRecipe, streams
from quickstudy.recipes.rates import RatesRecipe, off_by
from quickstudy.recipes.real_use import RealUseRecipe
from quickstudy.recipes.recipe import Experiment, Measure, Recipe
from quickstudy.recipes.regression import RegressionRecipe, fits
from quickstudy.recipes.semi_supervised import SemiSupervisedRecipe, refinements
from quickstudy.recipes.sinusoid import SinusoidRecipe
from quickstudy.recipes.six_curves import SixCurvesRecipe

SNELL = "Snell et al. 2017, arXiv 1703.05175, table 1"
FINN = "Finn et al. 2017, arXiv 1703.03400, table 1"

OMNIGLOT: dict[str, Any] = {"data": "omniglot", "schedule": "cosine", "validate_every": 250, "threads": 1}
"""How learners are trained on Omniglot for long."""
FEW_DRAWINGS: dict[str, Any] = {"data": "quickdraw", "samples_per_class": 20, "threads": 1}
"""The data of the headline experiment."""
DISTORTED: dict[str, Any] = {
    **FEW_DRAWINGS,
    "augment": "drawing",
    "mirrored": True,
    "validation_tasks": 200,
}
"""The same, where overfitting is the enemy: a drawing is another one each time, either way round."""


def metric(learner: str, title: str, source: str, papers: tuple[float, float, float]) -> Recipe:
    """A metric learner trained on 60-way Omniglot tasks; beside its paper: 5-way 1-, 5-shot, 20-way."""
    problems = zip(((5, 1), (5, 5), (20, 1)), papers, strict=True)
    return Recipe(
        title=f"Omniglot 1028/172/423 with rotations, {title}",
        source=source,
        config=TrainConfig(
            learner=learner, norm="running", train_way=60, train_query=5, iterations=4000, **OMNIGLOT
        ),
        measures=tuple(Measure(*problem, statistics="running", paper=paper) for problem, paper in problems),
    )


RECIPES: dict[str, Experiment] = {
    "omniglot-protonet": Recipe(
        title="Omniglot 1028/172/423 with rotations, Prototypical, 4-conv 64, running averages",
        source=SNELL,
        config=TrainConfig(
            learner="protonet",
            norm="running",
            train_way=60,
            train_query=5,
            outer_lr=1e-3,
            iterations=4000,
            **OMNIGLOT,
        ),
        measures=(
            Measure(5, 1, statistics="running", paper=98.8, target=98.0),
            Measure(5, 5, statistics="running", paper=99.7, target=99.4),
            Measure(20, 1, statistics="running", paper=96.0, target=94.5),
            Measure(5, 1, statistics="support"),
            Measure(5, 1, 1, statistics="batch"),
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
            outer_lr=1e-3,
            schedule="halving",
            iterations=1500,
            norm="running",
            validate_every=250,
            threads=1,
        ),
        measures=(Measure(5, 1, statistics="running"), Measure(20, 1, statistics="running")),
    ),
    "omniglot-matching": metric(
        "matching",
        "Matching, 4-conv 64, cosine, no full context",
        "Vinyals et al. 2016, arXiv 1606.04080, table 1",
        (98.1, 98.9, 93.8),
    ),
    "omniglot-r2d2": metric(
        "r2d2",
        "R2-D2, 4-conv 64, running averages",
        "Bertinetto et al. 2019, arXiv 1805.08136, table 2, of a wider net (96-192-384-512)",
        (98.91, 99.74, 96.24),
    ),
    "omniglot-relation": Recipe(
        title="Omniglot 1028/172/423 with rotations, Relation, 4-conv 64; transductive as published, and not",
        source="Sung et al. 2018, arXiv 1711.06025, table 1, by batches of one query a class",
        config=TrainConfig(
            learner="relation", norm="batch", train_way=20, train_query=5, iterations=4000, **OMNIGLOT
        ),
        measures=(
            Measure(5, 1, 1, statistics="batch", paper=99.6),
            Measure(5, 1, statistics="batch", paper=99.6),
            Measure(20, 1, 1, statistics="batch", paper=97.6),
            Measure(20, 1, statistics="batch", paper=97.6),
            Measure(5, 1, statistics="support"),
            Measure(5, 1, statistics="running"),
            Measure(20, 1, statistics="support"),
        ),
    ),
    "omniglot-maml": Recipe(
        title="Omniglot 1028/172/423 with rotations, MAML, 4-conv 64, one inner step, transductive",
        source=FINN,
        config=TrainConfig(
            learner="maml",
            train_query=1,
            meta_batch=16,
            outer_lr=1e-3,
            iterations=5000,
            norm="batch",
            settings={"inner_lr": 0.4, "steps": 1},
            strategy="loop",
            **OMNIGLOT,
        ),
        measures=(
            Measure(5, 1, statistics="batch", search=True, paper=98.7, target=97.5),
            Measure(5, 1, 1, statistics="batch", search=True, paper=98.7, target=97.5),
            Measure(5, 1, 1, statistics="batch"),
            Measure(5, 1, statistics="batch"),
            Measure(5, 1, statistics="support"),
            Measure(5, 1, statistics="running"),
        ),
    ),
    "omniglot-meta-sgd": Recipe(
        title="Omniglot 1028/172/423 with rotations, Meta-SGD, 4-conv 64, one inner step, transductive",
        source="Li et al. 2017, arXiv 1707.09835, table 2",
        config=TrainConfig(
            learner="meta-sgd",
            train_query=1,
            iterations=5000,
            norm="batch",
            settings={"inner_lr": 0.4, "steps": 1},
            **OMNIGLOT,
        ),
        measures=(
            Measure(5, 1, 1, statistics="batch", search=True, paper=99.53),
            Measure(5, 1, statistics="batch", search=True, paper=99.53),
            Measure(5, 1, statistics="support"),
        ),
    ),
    "quickdraw-maml": Recipe(
        title="Quick, Draw! 207/69/69, 20 drawings a class, MAML, 5 steps, 20 channels, transductive",
        source="the fastforwardlabs learning-to-learn report, 59.4 % on its own draw of the data",
        config=TrainConfig(
            **FEW_DRAWINGS,
            augment="none",
            learner="maml",
            query=1,
            train_query=1,
            channels=20,
            meta_batch=10,
            outer_lr=5e-4,
            schedule="constant",
            iterations=5000,
            norm="batch",
            validate_every=250,
            settings={"inner_lr": 0.005, "steps": 5, "inner_params": "filters"},
        ),
        measures=(Measure(5, 1, 1, statistics="batch", paper=59.4, target=55.0, tasks=5000),),
        seeds=(0, 1, 2),
    ),
    "quickdraw-curves": SixCurvesRecipe(),
    "quickdraw-simpleshot": Recipe(
        title="Quick, Draw! 207/69/69, 20 drawings a class, SimpleShot, residual net of 16 channels",
        source="no published number for this learner",
        config=TrainConfig(
            **DISTORTED,
            learner="simpleshot",
            body="resnet",
            channels=16,
            norm="running",
            rotations="train",
            iterations=20_000,
            validate_every=2000,
        ),
        measures=(Measure(5, 1, target=64.0), Measure(5, 5, target=82.0)),
        seeds=(0, 1, 2),
    ),
    "quickdraw-protonet": Recipe(
        title="Quick, Draw! 207/69/69, 20 drawings a class, distorted, Prototypical, 64 channels",
        source="no published number for this learner",
        config=TrainConfig(
            **DISTORTED,
            learner="protonet",
            norm="running",
            schedule="cosine",
            iterations=4000,
            validate_every=500,
        ),
        measures=(Measure(5, 1), Measure(5, 5), Measure(5, 1, statistics="support")),
        seeds=(0, 1, 2),
    ),
    "quickdraw-maml-distorted": Recipe(
        title="Quick, Draw! 207/69/69, 20 drawings a class, distorted, MAML, 5 steps, 32 channels, as long",
        source="the fastforwardlabs learning-to-learn report, 59.4 and 77.0 % on its own draw of the data",
        config=TrainConfig(
            **DISTORTED,
            learner="maml",
            channels=32,
            norm="batch",
            schedule="cosine",
            iterations=8000,
            validate_every=1000,
        ),
        measures=(
            Measure(5, 1, statistics="batch", search=True, paper=59.4),
            Measure(5, 5, statistics="batch", search=True, paper=77.0),
            Measure(5, 1, statistics="support", search=True),
            Measure(5, 5, statistics="support", search=True),
        ),
        seeds=(0, 1, 2),
    ),
    "sinusoid-maml": SinusoidRecipe(),
    "learners": LearnersRecipe(parts()),
    "variants": LearnersRecipe(
        variants(), title="Omniglot: what the choices are worth that learners leave, 10 minutes each"
    ),
    "generalisation": LearnersRecipe(
        generalising(),
        title="Quick, Draw!: classes of meta-training and unseen ones, by how many there were; a deeper body",
    ),
    "regression": RegressionRecipe(fits()),
    "real-use": RealUseRecipe(tuple(part for part in parts() if part.data == "omniglot")),
    "presentations": PresentationsRecipe(streams()),
    "rates": RatesRecipe(off_by()),
    "semi-supervised": SemiSupervisedRecipe(refinements()),
    "ntm-copy": CopyRecipe(nets()),
}


def recipe(name: str) -> Experiment:
    """The recipe with this name."""
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]
