"""scikit-learn estimators: meta-trained learners that are fitted to a handful of examples."""

from quickstudy.app.estimators.classifier import FewShotClassifier
from quickstudy.app.estimators.meta_trainer import MetaTrainer
from quickstudy.app.estimators.regressor import FewShotRegressor

__all__ = ["FewShotClassifier", "FewShotRegressor", "MetaTrainer"]
