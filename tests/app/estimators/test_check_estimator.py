"""scikit-learn's own checks of an estimator, on learners of rows and, rows laid out as pictures, of these.

scikit-learn's data are points of 1 to 20 numbers. Learners that take any number of them are checked as they
are. Those of pictures of one size are given the same points as flattened pictures, each number a band of
grey, so that all that is checked but the accuracy of a net that was trained on nothing holds for them too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import validate_data
from torch import Tensor

import quickstudy as qs
from quickstudy.app.estimators import FewShotClassifier, FewShotRegressor
from quickstudy.data.pictures import Pictures
from quickstudy.learners import R2D2

SIDE = 16
HASHES = {
    "check_estimators_overwrite_params": "it compares hashes of pickles, and two equal torch tensors have "
    "different ones; that fitting changes no weight is tested below"
}
UNTRAINED = {"check_classifiers_train": "it asks for accuracy, of a net that was trained on nothing"}
SINGLE = {
    "check_methods_subset_invariance": "it asks for 1e-7, and in single precision steps of gradient descent "
    "differ by more with the number of pictures in a call; that they agree to 1e-4 is tested below"
}


class OfPictures(FewShotClassifier):
    """Takes rows of any length, as flattened pictures of bands."""

    def _read(self, X: Any, *, reset: bool) -> Tensor:
        return super()._read(bands(validate_data(self, X, reset=reset)), reset=reset)


def bands(points: np.ndarray) -> np.ndarray:
    """Points `[n, D]` as pictures `[n, 16, 16]`: each number a band of grey."""
    grey = 1 / (1 + np.exp(-points.astype(float)))
    columns = np.arange(SIDE * SIDE) * points.shape[1] // (SIDE * SIDE)
    return grey[:, columns].reshape(len(points), SIDE, SIDE)


def of_pictures(learner: qs.Learner) -> FewShotClassifier:
    return OfPictures(learner, pictures=Pictures((1, SIDE, SIDE)))


def conv() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return qs.nets.conv4(8, size=SIDE)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: FewShotClassifier(qs.ProtoNet(torch.nn.Flatten())), {}),
        (lambda: FewShotRegressor(R2D2(torch.nn.Flatten(), penalty=1e-3)), HASHES),
        (lambda: of_pictures(qs.ProtoNet(conv())), HASHES | UNTRAINED | SINGLE),
        (lambda: of_pictures(qs.MAML(conv(), way=10)), HASHES | UNTRAINED | SINGLE),
        (lambda: of_pictures(qs.ProtoMAML(conv(), inner_lr=0.01)), HASHES | UNTRAINED | SINGLE),
    ],
    ids=["rows", "regression", "protonet", "maml", "proto-maml"],
)
def test_scikit_learns_checks(make: Callable[[], BaseEstimator], expected: dict[str, str]) -> None:
    results = check_estimator(make(), expected_failed_checks=expected, on_fail=None, on_skip=None)
    failed = {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"}
    assert not failed
    assert len(results) > 50
    unexplained = [r["check_name"] for r in results if r["status"] == "skipped"]
    assert set(unexplained) <= {
        "check_array_api_input",  # of no other arrays than NumPy's and torch's
        "check_classifier_data_not_an_array",  # both need pandas
        "check_regressor_data_not_an_array",
    }
    xfailed = [r["check_name"] for r in results if r["status"] == "xfail"]
    assert len(xfailed) <= 8


def test_fitting_and_predicting_change_no_weight() -> None:
    learner = qs.ProtoMAML(conv(), inner_lr=0.01)
    before = {k: v.clone() for k, v in learner.state_dict().items()}
    x, y = np.random.default_rng(0).normal(size=(30, 4)), np.arange(30) % 3
    classifier = of_pictures(learner).fit(x, y)
    whole = classifier.predict_proba(x)
    assert all(torch.equal(v, before[k]) for k, v in learner.state_dict().items())
    apart = np.concatenate([classifier.predict_proba(one[None]) for one in x])
    np.testing.assert_allclose(whole, apart, atol=1e-4)
