"""SimpleShot beside a loop over the paper's formulas, and its mean feature."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import UserError
from quickstudy.learners import SimpleShot
from quickstudy.nets import conv4
from quickstudy.outer import meta_train
from quickstudy.tasks import SupervisedBatches
from quickstudy.tasks.task import Task

pytestmark = pytest.mark.usefixtures("float64")


def test_answers_by_a_loop(batch: Task) -> None:
    body = conv4(4, size=16, blocks=2, norm="layer")
    learner = SimpleShot(body, classes=9, temperature=0.3)
    learner.centre.normal_()
    for task in batch.unbatch():
        found = learner.adapt(task.support)(task.query.x)
        with torch.no_grad():
            z, q = body(task.support.x), body(task.query.x)
        for i, row in enumerate(q):
            g = (row - learner.centre) / (row - learner.centre).norm()
            for c in range(task.support.ways):
                own = [(v - learner.centre) / (v - learner.centre).norm() for v in z[task.support.y == c]]
                mean = sum(own) / len(own)
                torch.testing.assert_close(found[i, c], -((g - mean) ** 2).sum() / 0.3)


def test_the_centre_is_the_running_mean_of_features(blobs: ClassDataset) -> None:
    learner = SimpleShot(conv4(4, size=16, norm="layer"), classes=8).double()
    source = SupervisedBatches(blobs, size=20, seed=3)
    before = learner.body.state_dict()
    meta_train(learner, source, iterations=30, outer_lr=0.0, progress=None)
    assert all(torch.equal(v, before[k]) for k, v in learner.body.state_dict().items())
    wanted = torch.zeros(4)
    for i in range(30):
        with torch.no_grad():
            z = learner.body(source.batch(np.array([i])).query.x[0].double())
        wanted = 0.95 * wanted + 0.05 * z.mean(0)
    torch.testing.assert_close(learner.centre, wanted, rtol=1e-6, atol=1e-8)


def test_a_predictor_keeps_the_centre_it_was_made_with(batch: Task) -> None:
    learner, task = SimpleShot(conv4(4, size=16), classes=9), next(batch.unbatch())
    predictor = learner.adapt(task.support)
    before = predictor(task.query.x)
    learner.after_step({"centre": torch.ones(4)}, {}, 0.5)
    assert torch.equal(predictor(task.query.x), before)
    assert not torch.equal(learner.adapt(task.support)(task.query.x), before)


def test_where_features_lie_does_not_matter(batch: Task) -> None:
    """Moved all by the same, and the centre with them; and however long they are about it."""
    task = next(batch.unbatch())

    class Moved(torch.nn.Module):
        features = 5

        def __init__(self, by: float, times: float) -> None:
            super().__init__()
            self.by, self.times = by, times

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.adaptive_avg_pool2d(x, (1, 5)).flatten(1) * self.times + self.by

    answers = []
    for by, times in ((0.0, 1.0), (7.0, 1.0), (0.0, 3.0)):
        learner = SimpleShot(Moved(by, times), classes=9)
        learner.centre.fill_(0.3 * times + by)
        answers.append(learner.adapt(task.support)(task.query.x))
    torch.testing.assert_close(answers[1], answers[0])
    torch.testing.assert_close(answers[2], answers[0])


def test_a_temperature_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="temperature must be a number above 0"):
        SimpleShot(conv4(4), classes=3, temperature=0.0)
