"""`FewShotClassifier`: a meta-trained learner as a scikit-learn classifier."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from torch import Tensor

from quickstudy.app.estimators.adapting import FewShotEstimator
from quickstudy.errors import UserError
from quickstudy.learners import Predictor


class FewShotClassifier(ClassifierMixin, FewShotEstimator):
    """Learns new classes from a handful of examples, by a learner that was meta-trained on others.

    `fit` adapts the learner, which takes milliseconds to seconds; nothing of the learner changes, so that
    one may serve any number of classifiers.

    scikit-learn's `check_estimator` passes for learners of plain numbers. One of pictures refuses the checks'
    rows of two or five numbers, which are no pictures; laid out as such, they pass but for three, of which
    one asks for accuracy of a net that was trained on nothing, one for equal pickles of equal tensors, and
    one for seven digits where single precision has fewer.

    Args:
        learner: a meta-trained learner; `from_run` takes a run's. It is never changed.
        steps: inner steps, of a learner that descends; None for its own number.
        transductive: whether pictures that are asked together are normalised together, so that an answer
            depends on the others: as some papers measure, and more accurate where the classes asked are
            balanced.
        pictures: the form of picture the learner was trained on, which files, images and arrays are brought
            to; None where examples are plain numbers, which then go to the learner as they are.
        polarity: what the given pictures are, "dark-on-light" or "light-on-dark", where that cannot be seen
            from the examples.
        config: the options of the run, which `save` keeps so that `load` can make the learner again.

    Attributes:
        classes_: the labels `[N]`, sorted.
        support_: the examples, as the learner takes them.
        learner_: the learner as it is used: a copy, where it is with other steps or transductive.
        predictor_: what it made of them.
        n_features_in_: numbers in a row, where rows of numbers were fitted.

    Example:
        >>> import quickstudy as qs
        >>> x, y = np.array([[0.0, 0.1], [1.0, 0.9], [0.1, 0.0]]), ["a", "b", "a"]
        >>> classifier = FewShotClassifier(qs.ProtoNet(torch.nn.Flatten())).fit(x, y)
        >>> classifier.predict([[0.9, 1.0]])
        array(['b'], dtype='<U1')
        >>> classifier.partial_fit([[5.0, 5.0]], ["c"]).classes_
        array(['a', 'b', 'c'], dtype='<U1')

        With a run on disk, and pictures: files, PIL images or arrays.

        >>> classifier = FewShotClassifier.from_run("runs/demo")  # doctest: +SKIP
        >>> classifier.fit(["cat1.png", "dog1.png"], ["cat", "dog"]).predict(["new.png"])  # doctest: +SKIP
    """

    of_functions = False

    def fit(self, X: Any, y: Any, *, unlabelled: Any = None) -> Self:
        """Adapt to labelled examples; what was fitted before is forgotten.

        Args:
            X: `[n, …]` numbers; or with `pictures`, file names, PIL images, arrays `[n, H, W]`,
                `[n, H, W, C]`, `[n, C, H, W]`, or flattened rows `[n, D]`.
            y: labels `[n]`, numbers or text, at least one example each.
            unlabelled: more examples, without labels, for learners that use them.

        Raises:
            UserError: a ValueError; what cannot be learned from, or more classes than the learner can tell
                apart.
        """
        return self._take(X, y, None, unlabelled, more=False)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, *, unlabelled: Any = None) -> Self:
        """Adapt to these examples and all that were fitted before, of known classes or new ones.

        Args:
            X: as in `fit`.
            y: their labels `[n]`.
            classes: labels that may appear later; until one has an example its probability is 0.
            unlabelled: as in `fit`.
        """
        return self._take(X, y, classes, unlabelled, more=True)

    def _take(self, X: Any, y: Any, classes: Any, unlabelled: Any, *, more: bool) -> Self:
        before = getattr(self, "classes_", None) if more else None
        with self._whole_or_not():
            labels = self._fit(X, y, unlabelled, more=more)
            # Each twice: many classes of one example each are no regression problem here.
            check_classification_targets(np.repeat(np.unique(labels), 2))
            known = [np.asarray(c) for c in (labels, classes, before) if c is not None]
            if len({c.dtype.kind in "biuf" for c in known}) > 1:
                raise UserError("labels are numbers or text, not both: 1 and '1' would become one class")
            self.classes_ = np.unique(np.concatenate(known))
            self._y = labels
            self._predictor = self._adapted()
        return self

    def _targets(self) -> Tensor:
        return torch.from_numpy(np.unique(self._y, return_inverse=True)[1])

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each class `[n, N]`, in the order of `classes_`."""
        found = self._answers(X, Predictor.probabilities)
        p = np.zeros((len(found), len(self.classes_)))
        p[:, np.searchsorted(self.classes_, np.unique(self._y))] = found
        return p

    def predict(self, X: Any) -> np.ndarray:
        """The most probable label of each example `[n]`."""
        best = self.predict_proba(X).argmax(-1)
        return self.classes_[best]
