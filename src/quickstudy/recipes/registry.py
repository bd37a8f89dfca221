"""The published experiments this library answers to."""

from __future__ import annotations

from quickstudy.errors import unknown
from quickstudy.outer.config import TrainConfig
from quickstudy.recipes.copy import CopyRecipe
from quickstudy.recipes.learners import LearnersRecipe, parts
from quickstudy.recipes.real_use import RealUseRecipe
from quickstudy.recipes.recipe import Experiment, Measure, Recipe
from quickstudy.recipes.sinusoid import SinusoidRecipe

SNELL = "Snell et al. 2017, arXiv 1703.05175, table 1"
FINN = "Finn et al. 2017, arXiv 1703.03400, table 1"

RECIPES: dict[str, Experiment] = {
    "omniglot-protonet": Recipe(
        title="Omniglot 1028/172/423 with rotations, Prototypical, 4-conv 64, running averages",
        source=SNELL,
        config=TrainConfig(
            data="omniglot",
            learner="protonet",
            train_way=60,
            train_query=5,
            iterations=4000,
            schedule="cosine",
            norm="running",
            validate_every=250,
            threads=1,
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
            train_query=1,
            meta_batch=16,
            iterations=5000,
            schedule="cosine",
            norm="batch",
            validate_every=250,
            settings={"inner_lr": 0.4, "steps": 1},
            strategy="loop",
            threads=1,
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
    "quickdraw-maml": Recipe(
        title="Quick, Draw! 207/69/69, 20 drawings a class, MAML, 5 steps, 20 channels, transductive",
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
            settings={"inner_lr": 0.005, "steps": 5, "inner_params": "filters"},
            threads=1,
        ),
        measures=(Measure(5, 1, 1, statistics="batch", paper=59.4, target=55.0, tasks=5000),),
        seeds=(0, 1, 2),
    ),
    "sinusoid-maml": SinusoidRecipe(),
    "learners": LearnersRecipe(parts()),
    "real-use": RealUseRecipe(tuple(part for part in parts() if part.data == "omniglot")),
    "ntm-copy": CopyRecipe(),
}


def recipe(name: str) -> Experiment:
    """The recipe with this name."""
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]
