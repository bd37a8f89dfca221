"""What a learner is worth: accuracy with its interval, calibration, confusion, floors, search, pictures."""

from quickstudy.evaluation.evaluate import Evaluation, evaluate, evaluate_modes
from quickstudy.evaluation.floors import Floor, floors, floors_table
from quickstudy.evaluation.paired import Difference, paired
from quickstudy.evaluation.presentations import Presentations, by_presentation
from quickstudy.evaluation.search import choose_settings
from quickstudy.evaluation.tuning import Tuned, tune, usual_space

__all__ = [
    "Difference",
    "Evaluation",
    "Floor",
    "Presentations",
    "Tuned",
    "by_presentation",
    "choose_settings",
    "evaluate",
    "evaluate_modes",
    "floors",
    "floors_table",
    "paired",
    "tune",
    "usual_space",
]
