"""From data to tasks: the `Task` type, samplers over classes, regression families."""

from quickstudy.tasks.completion import Completion
from quickstudy.tasks.gaussian_process import GaussianProcesses
from quickstudy.tasks.regression import Harmonics, Lines, Sinusoids
from quickstudy.tasks.sampler import ClassTasks, FrozenTasks, tasks
from quickstudy.tasks.supervised import SupervisedBatches
from quickstudy.tasks.task import Query, Support, Task, TaskSource

__all__ = [
    "ClassTasks",
    "Completion",
    "FrozenTasks",
    "GaussianProcesses",
    "Harmonics",
    "Lines",
    "Query",
    "Sinusoids",
    "SupervisedBatches",
    "Support",
    "Task",
    "TaskSource",
    "tasks",
]
