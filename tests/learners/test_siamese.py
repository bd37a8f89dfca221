from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import UserError
from quickstudy.learners import Siamese
from quickstudy.learners.siamese import drawn, told
from quickstudy.outer.config import TrainConfig
from quickstudy.tasks import ClassTasks, Task

from .common import Make

pytestmark = pytest.mark.usefixtures("float64")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("head", ["l1", "cosine"])
def test_logits_are_the_mean_log_odds_of_a_pair(head: Any, make: Make, batch: Task) -> None:
    learner = make("siamese", "layer", head=head)
    weight, bias = learner.score.weight.detach()[0], learner.score.bias.detach()[0]
    for task in batch.unbatch():
        z, q = learner.body(task.support.x).detach(), learner.body(task.query.x).detach()
        found = learner.adapt(task.support)(task.query.x)
        for i in range(len(q)):
            for n in range(3):
                odds = []
                for j in range(len(z)):
                    if task.support.y[j] == n and head == "l1":
                        odds.append(
                            sum(w * abs(a - b) for w, a, b in zip(weight, q[i], z[j], strict=True)) + bias
                        )
                    elif task.support.y[j] == n:
                        odds.append(weight[0] * (q[i] @ z[j]) / (q[i].norm() * z[j].norm()) + bias)
                torch.testing.assert_close(found[i, n], torch.stack(odds).mean())


def test_verification_counts_equal_and_different_pairs_alike(make: Make, batch: Task) -> None:
    learner, task = make("siamese"), next(batch.unbatch())
    outcome = learner.judge(task)
    scores = outcome.outputs
    equal = [scores[i, y] > 0 for i, y in enumerate(task.query.y)]
    different = [scores[i, n] <= 0 for i, y in enumerate(task.query.y) for n in range(3) if n != y]
    wanted = (np.mean(equal) + np.mean(different)) / 2
    assert outcome.metrics["verification"].item() == pytest.approx(wanted)
    assert told(torch.tensor([3.0]), torch.tensor([True])).item() == 0.5


def test_half_of_the_pairs_are_of_one_class_and_of_two_pictures(blobs: ClassDataset) -> None:
    batch = ClassTasks(blobs, 4, 2, query=3).batch(np.arange(5))
    learner = Siamese(nn.Identity(), head="cosine", pairs=200)
    y = torch.cat([batch.support.y, batch.query.y], 1)
    first, second = learner.prepare(batch, generator()).extra["pairs"].unbind(-1)
    same = y.gather(1, first) == y.gather(1, second)
    assert torch.equal(same, (torch.arange(200) % 2 == 0).expand(5, -1))
    assert (first != second).all()
    for rows in (first, second):  # each example as often as any other
        counts = torch.stack([rows == i for i in range(20)], -1).sum((0, 1))
        assert counts.min() > 25
        assert counts.max() < 85


def test_pairs_are_of_a_tasks_examples_once_its_padding_is_out(blobs: ClassDataset) -> None:
    source = ClassTasks(blobs, (2, 4), (1, 3), query=(1, 3), ragged=True)
    batch = source.batch(np.arange(20))
    learner = Siamese(nn.Identity(), head="cosine", pairs=40)
    for task in learner.prepare(batch, generator()).unbatch():
        y = torch.cat([task.support.y, task.query.y])
        first, second = task.extra["pairs"].unbind(-1)  # beyond the examples there is an error
        assert torch.equal(y[first] == y[second], torch.arange(40) % 2 == 0)
        assert (first != second).all()


def test_drawn_is_even() -> None:
    among = torch.tensor([False, True, False, True, True])
    found = drawn(among.expand(3000, -1), torch.rand(3000, generator=generator()))
    counts = torch.bincount(found, minlength=5)
    assert counts.tolist()[0::2][:2] == [0, 0]
    assert all(900 < counts[i] < 1100 for i in (1, 3, 4))
    assert drawn(torch.tensor([False, False]), torch.tensor(0.9)) == 0


def test_the_objective_is_the_cross_entropy_of_its_pairs(make: Make, batch: Task) -> None:
    learner = make("siamese", "layer", pairs=6)
    prepared = learner.prepare(batch, generator())
    for task in prepared.unbatch():
        x, y = torch.cat([task.support.x, task.query.x]), torch.cat([task.support.y, task.query.y])
        wanted = []
        for a, b in task.extra["pairs"].tolist():
            score = learner.score((learner.body(x[[a]]) - learner.body(x[[b]])).abs())[0, 0]
            p = 1 / (1 + (-score).exp())
            wanted.append(-(p if y[a] == y[b] else 1 - p).log())
        torch.testing.assert_close(learner(task).loss, torch.stack(wanted).mean())


@pytest.mark.parametrize("head", ["l1", "cosine"])
@pytest.mark.parametrize("norm", ["support", "batch"])
def test_meta_gradient_by_finite_differences(
    head: Any, norm: str, smooth: Callable[[str], nn.Module], batch: Task, agrees: Callable[..., None]
) -> None:
    learner = Siamese(smooth(norm), head=head, pairs=8)
    agrees(learner, learner.prepare(batch, generator()))


def test_it_is_usually_trained_on_distorted_pictures() -> None:
    assert TrainConfig(learner="siamese").augment == "affine"
    assert TrainConfig(learner="siamese", augment="none").augment == "none"
    assert TrainConfig(learner="protonet").augment == "none"


def test_what_is_refused(make: Make) -> None:
    with pytest.raises(UserError, match="unknown head 'l2': did you mean 'l1'"):
        make("siamese", head="l2")
    with pytest.raises(UserError, match="pairs must be at least 2"):
        make("siamese", pairs=1)
