"""`FewShotRegressor`: a meta-trained learner as a scikit-learn regressor."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from sklearn.base import RegressorMixin
from sklearn.utils import Tags
from torch import Tensor

from quickstudy.app.estimators.adapting import FewShotEstimator
from quickstudy.learners import Predictor


class FewShotRegressor(RegressorMixin, FewShotEstimator):
    """Learns a new function from a handful of points, by a learner that was meta-trained on others.

    Args:
        learner: a meta-trained learner; `from_run` takes a run's. It is never changed.
        steps, transductive: see `FewShotClassifier`.
        pictures: the form of picture the learner was trained on, if of any; see `FewShotClassifier`.
        polarity: see `FewShotClassifier`.
        config: the options of the run, which `save` keeps so that `load` can make the learner again.

    Attributes:
        support_: the points, as the learner takes them.
        learner_: the learner as it is used: a copy, where it is with other steps.
        predictor_: what it made of them.
        n_features_in_: numbers in a row.

    Example:
        >>> import quickstudy as qs
        >>> learner = qs.R2D2(torch.nn.Flatten(), penalty=1e-6)  # a ridge regression, untrained
        >>> FewShotRegressor(learner).fit([[0.0], [1.0]], [1.0, 3.0]).predict([[2.0]]).round(2)
        array([5.])
    """

    of_functions = True

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any, *, unlabelled: Any = None) -> Self:
        """Adapt to points; what was fitted before is forgotten.

        Args:
            X: `[n, …]`.
            y: values `[n]` or `[n, D]`.
            unlabelled: more inputs, without values, for learners that use them.
        """
        return self._take(X, y, unlabelled, more=False)

    def partial_fit(self, X: Any, y: Any, *, unlabelled: Any = None) -> Self:
        """Adapt to these points and all that were fitted before."""
        return self._take(X, y, unlabelled, more=True)

    def _take(self, X: Any, y: Any, unlabelled: Any, *, more: bool) -> Self:
        with self._whole_or_not():
            self._y = self._fit(X, y, unlabelled, more=more).astype(np.float64)
            self._predictor = self._adapted()
        return self

    def _targets(self) -> Tensor:
        y = torch.from_numpy(np.asarray(self._y, np.float32))
        return y[:, None] if y.ndim == 1 else y

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Values `[n]`, or `[n, D]` where such were fitted.

        Args:
            return_std: also their standard deviations, of learners that have them (cnp, anp, transformer).

        Raises:
            DataError: `return_std` of a learner that does not say how sure it is.
        """

        def ask(predictor: Predictor, x: Tensor) -> Tensor:
            if return_std:
                return torch.cat(predictor.gaussian(x), -1)
            return predictor.gaussian(x)[0] if predictor.spread else predictor(x)

        found = self._answers(X, ask)
        mean, *std = np.split(found, 2, axis=-1) if return_std else [found]
        return (self._as_fitted(mean), self._as_fitted(std[0])) if return_std else self._as_fitted(mean)

    def _as_fitted(self, values: np.ndarray) -> np.ndarray:
        return values[:, 0] if self._y.ndim == 1 else values
