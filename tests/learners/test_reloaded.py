"""A learner that was saved and made again answers as before; so does a predictor, as an estimator's file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from quickstudy.app.estimators import FewShotClassifier
from quickstudy.learners import CONTROLS, LEARNERS, Learner
from quickstudy.outer.config import TrainConfig

RNG = np.random.default_rng(0)
X = RNG.random((10, 1, 16, 16)).astype(np.float32)
Y = np.arange(10) % 5
Q = RNG.random((7, 1, 16, 16)).astype(np.float32)


def made(name: str, seed: int) -> tuple[Learner, dict[str, object]]:
    """A learner with weights that are of no seed, and the options that make it again."""
    config = TrainConfig(data="glyphs", learner=name, channels=4, size=16, seed=seed)
    learner = config.make_learner((1, 16, 16), 6).eval()
    with torch.no_grad():
        for i, p in enumerate(learner.parameters()):
            p.mul_(1 + 0.01 * (i + 1))
        for layer in learner.norms().values():
            layer.mean.add_(0.1)
            layer.var.mul_(1.2)
    return learner, {**config.json(), "pictures": {"shape": [1, 16, 16], "polarity": None}, "classes": 6}


@pytest.mark.parametrize("name", [*LEARNERS, *CONTROLS])
def test_saved_and_made_again_it_answers_the_same(name: str, tmp_path: Path) -> None:
    learner, options = made(name, seed=0)
    expected = learner.adapt(X, Y)(Q)
    other, _ = made(name, seed=1)
    other.load_state_dict(learner.state_dict())
    torch.testing.assert_close(other.adapt(X, Y)(Q), expected, rtol=0, atol=0)

    path = tmp_path / "a.safetensors"
    classifier = FewShotClassifier.of_run(learner, options).fit(X, Y)
    classifier.save(path)
    found = FewShotClassifier.load(path, device="cpu").predict_proba(Q)
    np.testing.assert_array_equal(found, classifier.predict_proba(Q))
