"""Learners that read a stream: what they are told when, and what they are scored by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import DataError, TaskError, UserError
from quickstudy.inner import estimate
from quickstudy.learners import MANN, LSTMLearner
from quickstudy.learners.labels import apart, log_likelihoods, strings
from quickstudy.learners.stream import StreamLearner, by_presentation
from quickstudy.nets import mlp
from quickstudy.tasks import ClassTasks, Sinusoids, Support, Task

pytestmark = pytest.mark.usefixtures("float64")

SMALL = {"lstm": {"hidden": 7}, "mann": {"hidden": 7, "rows": 6, "memory_width": 4, "heads": 2}}
KINDS = {"lstm": LSTMLearner, "mann": MANN}
Make = Callable[..., StreamLearner]


@pytest.fixture(params=SMALL)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def prepared(learner: StreamLearner, batch: Task, seed: int = 0) -> Task:
    return learner.prepare(batch, torch.Generator().manual_seed(seed))


def in_order(task: Task) -> tuple[Tensor, Tensor]:
    """The stream's examples and labels, in the order that was drawn."""
    order = task.extra["order"].argsort()
    return torch.cat([task.support.x, task.query.x])[order], torch.cat([task.support.y, task.query.y])[order]


@pytest.mark.parametrize("labels", ["one-hot", "strings"])
def test_each_step_is_the_answer_after_learning_from_those_before(
    name: str, labels: str, make: Make, batch: Task
) -> None:
    """So no step is told its own label, or anything later, and training is on what use asks for."""
    learner = make(name, "layer", labels=labels, **SMALL[name])
    task = next(prepared(learner, batch).unbatch())
    x, y = in_order(task)
    numbers = task.extra.get("strings", apart(3))
    codes = torch.eye(3) if labels == "one-hot" else strings(numbers).to(x.dtype)
    cell, nothing = learner.cell, torch.zeros(codes.shape[1])
    given_out, *_ = cell(
        torch.cat([learner.body(x[:1])[0], nothing]), cell.start(torch.cat([x[0].new_zeros(16), nothing]))
    )
    answers = [log_likelihoods(learner.head(given_out), codes, learner.letters)]
    learner.codes = lambda support, strings=None: codes  # of the strings that were drawn
    for t in range(1, len(x)):
        answers.append(learner.learn(Support(x[:t], y[:t], 3))(x[t : t + 1])[0])
    said = torch.stack(answers)
    outcome = learner(task)
    torch.testing.assert_close(outcome.loss, -said[torch.arange(len(y)), y].mean())
    right, counts = (said.argmax(-1) == y).tolist(), [0, 0, 0]
    by_hand: dict[int, list[float]] = {}
    for hit, c in zip(right, y.tolist(), strict=True):
        counts[c] += 1
        by_hand.setdefault(counts[c], []).append(float(hit))
    assert outcome.metrics["accuracy"].item() == pytest.approx(np.mean(right))
    for k in (1, 2):
        assert outcome.metrics[f"accuracy_{k}"].item() == pytest.approx(np.mean(by_hand[k]))


def test_a_query_is_answered_by_itself_and_told_the_last_label(name: str, make: Make, batch: Task) -> None:
    learner, task = make(name, "layer", **SMALL[name]), next(batch.unbatch())
    cell, codes = learner.cell, torch.eye(3)
    z, q = learner.body(task.support.x), learner.body(task.query.x)
    late, state = torch.zeros(3), cell.start(torch.cat([z[0], torch.zeros(3)]))
    for x, y in zip(z, task.support.y, strict=True):
        state = cell(torch.cat([x, late]), state)
        late = codes[y]
    wanted = [learner.head(cell(torch.cat([x, late]), state)[0]).log_softmax(-1) for x in q]
    torch.testing.assert_close(learner.adapt(task.support)(task.query.x), torch.stack(wanted).detach())


@pytest.mark.parametrize("labels", ["one-hot", "strings"])
def test_meta_gradient_by_finite_differences(
    name: str, labels: str, smooth: Callable[[], nn.Module], batch: Task, agrees: Callable[..., None]
) -> None:
    learner = KINDS[name](smooth(), way=3, labels=labels, **SMALL[name])
    agrees(learner, prepared(learner, batch), rtol=1e-5)


def test_orders_and_strings_are_drawn_before_the_map(make: Make, batch: Task) -> None:
    learner = make("lstm", labels="strings", hidden=4)
    drawn, again, other = (prepared(learner, batch, seed).extra for seed in (3, 3, 4))
    for k, shape in {"order": (3, 15), "strings": (3, 3)}.items():
        assert drawn[k].shape == shape
        assert torch.equal(drawn[k], again[k])
        assert not torch.equal(drawn[k], other[k])
    assert all(len(numbers.unique()) == 3 for numbers in drawn["strings"])


def test_padding_is_no_part_of_a_stream(blobs: ClassDataset) -> None:
    learner = LSTMLearner(mlp(256), way=5, hidden=5)
    source = ClassTasks(blobs, (2, 5), (1, 4), (1, 3), ragged=True)
    batch = prepared(learner, source.batch(np.arange(6)).to(torch.float64))
    together = estimate(learner, batch, "vmap")[0]
    for t, task in enumerate(batch.unbatch()):
        n = len(task.support.x) + len(task.query.x)
        alone = replace(task, extra={"order": task.extra["order"][:n]})
        torch.testing.assert_close(together.loss[t], learner(alone).loss.detach())


def test_accuracy_by_presentation_by_hand() -> None:
    y = torch.tensor([2, 0, 2, 1, 0, 1, 2, 0, 0])
    right = torch.tensor([0, 1, 1, 0, 0, 1, 1, 0, 1.0])
    found = by_presentation(right, y, 3, most=5)
    wanted = [(0 + 1 + 0) / 3, (1 + 0 + 1) / 3, (1 + 0) / 2, 1.0]
    assert found[:4].tolist() == pytest.approx(wanted)
    assert found[4].isnan()


def test_a_string_is_as_likely_as_its_letters_together() -> None:
    numbers = torch.tensor([0, 7, 3124, 1234])
    codes, outputs = strings(numbers), torch.randn(6, 25)
    assert (codes.sum(1) == 5).all()
    assert len({tuple(code) for code in strings(torch.arange(3125)).tolist()}) == 3125
    letters = outputs.view(6, 5, 5).softmax(-1)
    for i, number in enumerate(numbers.tolist()):
        wanted = torch.ones(6)
        for place in range(5):
            wanted = wanted * letters[:, place, number // 5**place % 5]
        found = log_likelihoods(outputs, codes.double(), 5)[:, i].exp()
        torch.testing.assert_close(found, wanted)


def test_strings_serve_more_ways_and_one_hot_says_so(name: str, make: Make) -> None:
    x, y = torch.rand(8, 1, 16, 16), torch.arange(8)
    predictor = make(name, labels="strings", **SMALL[name]).adapt(x, y)
    assert predictor(x).shape == (8, 8)
    assert len(apart(500).unique()) == 500
    with pytest.raises(TaskError, match="answers at most 3 ways, not 8"):
        make(name, **SMALL[name]).adapt(x, y)
    assert make(name, **SMALL[name]).adapt(x[:4], [0, 1, 1, 0])(x).shape == (8, 2)


def test_regression_is_told_targets_late(name: str) -> None:
    learner = KINDS[name](mlp(1, (6,)), way=1, **SMALL[name])
    batch = prepared(learner, Sinusoids(shot=4, query=3).batch(np.arange(2)).to(torch.float64))
    task = next(batch.unbatch())
    x, y = in_order(task)
    errors = []
    for t in range(1, 7):
        errors.append(F.mse_loss(learner.learn(Support(x[:t], y[:t]))(x[t : t + 1]), y[t : t + 1]))
    cell, first = learner.cell, torch.cat([learner.body(x[:1])[0], torch.zeros(1)])
    errors.append(F.mse_loss(learner.head(cell(first, cell.start(first))[0]), y[0]))
    outcome = learner(task)
    torch.testing.assert_close(outcome.loss, torch.stack(errors).mean())
    assert set(outcome.metrics) == {"loss"}


def test_a_reloaded_learner_answers_the_same(name: str, make: Make, batch: Task) -> None:
    learner, again = (make(name, "layer", **SMALL[name]) for _ in range(2))
    task = next(batch.unbatch())
    wanted = learner.adapt(task.support)(task.query.x)
    assert not torch.equal(again.adapt(task.support)(task.query.x), wanted)
    again.load_state_dict(learner.state_dict())
    assert torch.equal(again.adapt(task.support)(task.query.x), wanted)


def test_what_cannot_be_is_an_error() -> None:
    with pytest.raises(UserError, match="way must be at least 1, not 0"):
        LSTMLearner(mlp(2), way=0)
    with pytest.raises(UserError, match="unknown labels 'string': did you mean 'strings'"):
        LSTMLearner(mlp(2), way=2, labels="string")
    with pytest.raises(UserError, match="heads must be from 1 to the 2 rows of the memory, not 3"):
        MANN(mlp(2), way=2, rows=2, heads=3)
    with pytest.raises(UserError, match="hidden must be at least 1"):
        LSTMLearner(mlp(2), way=2, hidden=0)
    with pytest.raises(DataError, match="strings are for classes"):
        LSTMLearner(mlp(2), way=1, labels="strings").adapt(torch.rand(3, 2), torch.rand(3, 1))
    with pytest.raises(DataError, match="2 targets an example; this learner predicts 1"):
        LSTMLearner(mlp(3), way=1).adapt(torch.rand(4, 3), torch.rand(4, 2))
