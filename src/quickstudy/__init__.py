"""Meta-learning: teach a model on many small tasks so that it learns a new one from a handful of examples.

>>> import quickstudy as qs
>>> train, val, test = qs.data.glyphs(classes=60).split()
>>> learner = qs.ProtoNet(qs.nets.conv4(channels=8))
>>> run = qs.meta_train(learner, qs.tasks(train, way=5, shot=1), iterations=2)
>>> task = qs.tasks(test, way=5, shot=1).task(0)
>>> predictor = learner.adapt(task.support.x, task.support.y)
>>> predictor(task.query.x).argmax(-1).shape
torch.Size([75])
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# Threads of torch that wait for each other must sleep, not spin: on cores that others use too, spinning made
# training several times slower. Read when torch is loaded; whoever set it is left alone.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from quickstudy import data, evaluation, inner, learners, nets, outer
from quickstudy.data import ClassDataset
from quickstudy.evaluation import evaluate, floors, paired, tune
from quickstudy.learners import (
    ANIL,
    ANP,
    BOIL,
    CNP,
    FOMAML,
    IMAML,
    MAML,
    MANN,
    MMAML,
    R2D2,
    SNAIL,
    AlphaMAML,
    FiLM,
    HyperNet,
    InContext,
    Learner,
    LSTMLearner,
    MAMLPlusPlus,
    MatchingNet,
    MetaSGD,
    PixelNN,
    Predictor,
    PretrainCentroid,
    PretrainFinetune,
    ProtoMAML,
    ProtoNet,
    RelationNet,
    Reptile,
    Scratch,
    SemiProtoNet,
    Siamese,
    SimpleShot,
    Untrained,
)
from quickstudy.outer import RunFolder, meta_train
from quickstudy.outer.config import TrainConfig
from quickstudy.outer.load_run import load_run
from quickstudy.outer.session import train
from quickstudy.tasks import (
    ClassTasks,
    Completion,
    FiveModes,
    FrozenTasks,
    GaussianProcesses,
    Harmonics,
    Lines,
    Query,
    Sinusoids,
    SupervisedBatches,
    Support,
    Task,
    tasks,
)
from quickstudy.version import __version__

if TYPE_CHECKING:
    from quickstudy import recipes
    from quickstudy.app.estimators import FewShotClassifier, FewShotRegressor, MetaTrainer

__all__ = [
    "ANIL",
    "ANP",
    "BOIL",
    "CNP",
    "FOMAML",
    "IMAML",
    "MAML",
    "MANN",
    "MMAML",
    "R2D2",
    "SNAIL",
    "AlphaMAML",
    "ClassDataset",
    "ClassTasks",
    "Completion",
    "FewShotClassifier",
    "FewShotRegressor",
    "FiLM",
    "FiveModes",
    "FrozenTasks",
    "GaussianProcesses",
    "Harmonics",
    "HyperNet",
    "InContext",
    "LSTMLearner",
    "Learner",
    "Lines",
    "MAMLPlusPlus",
    "MatchingNet",
    "MetaSGD",
    "MetaTrainer",
    "PixelNN",
    "Predictor",
    "PretrainCentroid",
    "PretrainFinetune",
    "ProtoMAML",
    "ProtoNet",
    "Query",
    "RelationNet",
    "Reptile",
    "RunFolder",
    "Scratch",
    "SemiProtoNet",
    "Siamese",
    "SimpleShot",
    "Sinusoids",
    "SupervisedBatches",
    "Support",
    "Task",
    "TrainConfig",
    "Untrained",
    "__version__",
    "data",
    "evaluate",
    "evaluation",
    "floors",
    "inner",
    "learners",
    "load_run",
    "meta_train",
    "nets",
    "outer",
    "paired",
    "recipes",
    "tasks",
    "train",
    "tune",
]


def __getattr__(name: str) -> Any:
    """Recipes and the scikit-learn estimators are loaded when they are asked for: that takes its time."""
    if name == "recipes":
        return import_module("quickstudy.recipes")
    if name in ("FewShotClassifier", "FewShotRegressor", "MetaTrainer"):
        return getattr(import_module("quickstudy.app.estimators"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """What is meant to be used, the estimators too."""
    return sorted(__all__)
