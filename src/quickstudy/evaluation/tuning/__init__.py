"""The search over a run's options, by accuracy on meta-validation."""

from quickstudy.evaluation.tuning.space import Choice, Range, usual_space
from quickstudy.evaluation.tuning.trials import Trial, Tuned
from quickstudy.evaluation.tuning.tune import tune

__all__ = ["Choice", "Range", "Trial", "Tuned", "tune", "usual_space"]
