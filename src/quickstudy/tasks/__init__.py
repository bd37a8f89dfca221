"""From data to tasks: the `Task` type, samplers over classes, regression families."""

from quickstudy.tasks.augment import AUGMENTATIONS, Augmented, Distortion
from quickstudy.tasks.completion import Completion
from quickstudy.tasks.gaussian_process import GaussianProcesses
from quickstudy.tasks.long_tailed import LongTailed
from quickstudy.tasks.mislabelled import Mislabelled
from quickstudy.tasks.regression import FiveModes, Harmonics, Lines, Sinusoids
from quickstudy.tasks.sampler import ClassTasks, FrozenTasks, tasks
from quickstudy.tasks.supervised import SupervisedBatches
from quickstudy.tasks.task import Query, Support, Task, TaskSource

__all__ = [
    "AUGMENTATIONS",
    "Augmented",
    "ClassTasks",
    "Completion",
    "Distortion",
    "FiveModes",
    "FrozenTasks",
    "GaussianProcesses",
    "Harmonics",
    "Lines",
    "LongTailed",
    "Mislabelled",
    "Query",
    "Sinusoids",
    "SupervisedBatches",
    "Support",
    "Task",
    "TaskSource",
    "tasks",
]
