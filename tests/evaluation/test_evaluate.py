"""`evaluate` beside a plain loop over `adapt`, for tasks of one size and of any size."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import precision_score

from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import TaskError, UserError
from quickstudy.evaluation import Evaluation, evaluate, evaluate_modes
from quickstudy.evaluation.scores import calibration
from quickstudy.inner.outcome import Outcome
from quickstudy.learners import Learner, build
from quickstudy.learners.protonet import ProtoNet
from quickstudy.nets import conv4, mlp
from quickstudy.tasks import ClassTasks, Task
from quickstudy.tasks.gaussian_process import GaussianProcesses
from quickstudy.tasks.regression import Sinusoids
from quickstudy.tasks.sampler import FrozenTasks

SIZES: dict[str, dict[str, Any]] = {
    "one size": {"way": 3, "shot": 2, "query": 4},
    "any way": {"way": (2, 5), "shot": 1, "query": 3},
    "any shot, class by class": {"way": 3, "shot": (1, 4), "query": 4, "ragged": True},
    "any number of queries": {"way": (2, 4), "shot": 2, "query": (1, 5)},
}


@pytest.fixture(scope="module")
def faint() -> ClassDataset:
    """8 classes of 12 pictures that are mostly noise."""
    rng = np.random.default_rng(1)
    templates = rng.uniform(0, 100, (8, 16, 16))
    x = templates[np.repeat(np.arange(8), 12)] + rng.uniform(0, 150, (96, 16, 16))
    return ClassDataset.from_arrays(x.astype(np.uint8), np.repeat(np.arange(8), 12), name="faint")


def small(norm: str = "support", name: str = "protonet", way: int = 5, **settings: Any) -> Learner:
    return build(name, conv4(4, size=16, blocks=2, norm=norm), way=way, classes=8, settings=settings)


def by_hand(learner: Learner, source: ClassTasks, n_tasks: int) -> dict[str, Any]:
    """The same numbers task by task, with numpy and scikit-learn."""
    accuracy, loss, precision, sure, right = [], [], [], [], []
    table: dict[str, dict[str, int]] = {}
    for i in range(n_tasks):
        task = source.task(i)
        logits = learner.adapt(task.support.x, task.support.y)(task.query.x)
        y, guess = task.query.y.numpy(), logits.argmax(1).numpy()
        accuracy.append((y == guess).mean())
        loss.append(F.cross_entropy(logits, task.query.y).item())
        labels = range(logits.shape[1])
        precision.append(precision_score(y, guess, labels=labels, average="macro", zero_division=0))
        sure += logits.softmax(1).max(1).values.tolist()
        right += (y == guess).tolist()
        assert task.classes is not None
        for t, p in zip(y, guess, strict=True):
            names = [source.data.names[int(task.classes[c])] for c in (t, p)]
            row = table.setdefault(names[0], {})
            row[names[1]] = row.get(names[1], 0) + 1
    return {
        "accuracy": np.mean(accuracy),
        "ci95": 1.96 * np.std(accuracy, ddof=1) / math.sqrt(n_tasks),
        "loss": np.mean(loss),
        "precision": np.mean(precision),
        "ece": calibration(torch.tensor(sure), torch.tensor(right)).error,
        "confusion": table,
    }


@pytest.mark.parametrize("size", SIZES)
def test_every_number_is_the_plain_loops(faint: ClassDataset, size: str) -> None:
    source, learner = ClassTasks(faint, seed=3, **SIZES[size]), small()
    wanted, got = by_hand(learner, source, 12), evaluate(learner, source, 12, chunk=5)
    for name in ("accuracy", "ci95", "loss", "precision"):
        assert getattr(got, name) == pytest.approx(wanted[name], rel=1e-4), name
    # A confidence may fall on the other side of a bin's edge by rounding.
    assert got.ece == pytest.approx(wanted["ece"], abs=0.02)
    assert got.confusion == wanted["confusion"]
    assert 0.3 < wanted["accuracy"] < 0.95
    assert wanted["ci95"] > 0


@pytest.mark.parametrize("name", ["protonet", "maml"])
def test_strategy_and_chunk_change_nothing(blobs: ClassDataset, name: str) -> None:
    source, learner = ClassTasks(blobs, 3, 1, query=4), small(name=name)
    wanted = evaluate(learner, source, 7, strategy="loop", chunk=1)
    for strategy, chunk in (("vmap", 3), ("loop", 100), ("vmap", 100)):
        got = evaluate(learner, source, 7, strategy=strategy, chunk=chunk)
        assert got.loss == pytest.approx(wanted.loss, rel=1e-4)
        assert got.confusion == wanted.confusion


def test_saved_tasks_score_as_the_drawn_ones(blobs: ClassDataset, tmp_path: Path) -> None:
    source, learner = ClassTasks(blobs, (2, 4), 1, query=3), small()
    source.save(tmp_path / "tasks.safetensors", 6)
    frozen = FrozenTasks(blobs, tmp_path / "tasks.safetensors")
    drawn, saved = evaluate(learner, source, 6), evaluate(learner, frozen, 6)
    assert saved.json() == {**drawn.json(), "way": [2, 4]}
    assert str(saved) == str(drawn)
    assert saved.confusion == drawn.confusion
    with pytest.raises(TaskError, match="7 tasks are asked for, but there are 6"):
        evaluate(learner, frozen, 7)


def test_regression_has_a_squared_error_and_no_accuracy() -> None:
    source = Sinusoids(shot=5, query=7)
    learner = build("maml", mlp(1, (8,), norm="none"), way=1, classes=0)
    errors = []
    for i in range(9):
        task = source.task(i)
        guess = learner.adapt(task.support.x, task.support.y)(task.query.x)
        errors.append(float(((guess - task.query.y) ** 2).mean()))
    got = evaluate(learner, source, 9)
    assert got.loss == pytest.approx(np.mean(errors), rel=1e-4)
    assert got.ci95 == pytest.approx(1.96 * np.std(errors, ddof=1) / 3, rel=1e-4)
    assert (got.accuracy, got.precision, got.ece, got.confusion) == (None, None, None, {})
    assert str(got).startswith(f"mean squared error {got.loss:.4f} ± ")
    assert json.loads(json.dumps(got.json(), allow_nan=False))["accuracy"] is None


def test_regression_with_uncertainty_has_a_likelihood_too() -> None:
    source = GaussianProcesses(shot=5, query=7)
    learner = build("cnp", mlp(1, (8,)), way=1, classes=0, settings={"hidden": 8})
    nats, errors = [], []
    for task in source.batch(np.arange(6)).unbatch():
        mean, std = learner.adapt(task.support).gaussian(task.query.x)
        nats.append(float(torch.distributions.Normal(mean, std).log_prob(task.query.y).mean()))
        errors.append(float(((mean - task.query.y) ** 2).mean()))
    got = evaluate(learner, source, 6)
    assert got.json()["log_likelihood"] == pytest.approx(np.mean(nats), rel=1e-4)
    assert got.loss == pytest.approx(np.mean(errors), rel=1e-4)
    assert f"log-likelihood {np.mean(nats):.3f} nats a point (6 tasks" in str(got)


def test_the_learner_is_left_as_it_was(blobs: ClassDataset) -> None:
    learner = small("running", name="maml")
    learner.train()
    next(learner.modules()).get_submodule("net.body").eval()
    before = {k: v.clone() for k, v in learner.state_dict().items()}
    flags = [m.training for m in learner.modules()]
    evaluate(learner, ClassTasks(blobs, 3, 1, query=2), 3, statistics="batch")
    assert [m.training for m in learner.modules()] == flags
    assert len(set(flags)) == 2
    assert learner.statistics == "running"
    assert all(torch.equal(v, before[k]) for k, v in learner.state_dict().items())
    assert all(p.grad is None for p in learner.parameters())
    with pytest.raises(TaskError, match="answers at most 5 ways, not 8"):
        evaluate(learner, ClassTasks(blobs, 8, 1, query=2), 3, statistics="batch")
    assert learner.statistics == "running"
    assert [m.training for m in learner.modules()] == flags


def test_modes(blobs: ClassDataset) -> None:
    source = ClassTasks(blobs, 3, 1, query=4)
    learner = small("running")
    found = {e.statistics: e for e in evaluate_modes(learner, source, 10)}
    assert list(found) == ["running", "support", "batch"]  # its own first
    assert [e.transductive for e in found.values()] == [False, False, True]
    assert len({e.loss for e in found.values()}) == 3
    assert "(10 tasks" in str(found["batch"])
    assert ", transductive: batch statistics)" in str(found["batch"])
    assert ", non-transductive: support statistics)" in str(found["support"])
    for statistics, e in found.items():
        learner.statistics = statistics
        assert evaluate(learner, source, 10).json() == e.json()


def test_without_batch_normalisation_there_is_one_mode(blobs: ClassDataset) -> None:
    source, learner = ClassTasks(blobs, 3, 1, query=2), small("group")
    [only] = evaluate_modes(learner, source, 3)
    assert (only.statistics, only.transductive) == (None, False)
    assert ", non-transductive)" in str(only)
    with pytest.raises(UserError, match=r"cannot normalise by batch .*no batch normalisation"):
        evaluate(learner, source, 3, statistics="batch")
    with pytest.raises(UserError, match="it can by: support, batch"):
        evaluate(small(), source, 3, statistics="bacth")


def test_what_the_json_holds(blobs: ClassDataset) -> None:
    got = evaluate(small(), ClassTasks(blobs, 3, 1, query=2, seed=5), 1).json()
    told = json.loads(json.dumps(got, allow_nan=False))
    assert told["ci95"] is None  # one task has no interval, and JSON no infinity
    about = {"data": "blobs", "way": 3, "shot": 1, "query": 2, "seed": 5, "tasks": 1, "transductive": False}
    assert told.items() >= about.items()
    assert {"accuracy", "loss", "precision", "calibration_error", "statistics"} <= told.keys()
    assert not {"confusion", "calibration"} & told.keys()


def test_too_few_tasks_are_said_to_be() -> None:
    def text(tasks: int) -> str:
        return str(Evaluation(0.5, 0.01, 1.0, tasks, False, precision=0.5, calibration=calibration(*one)))

    one = (torch.ones(1), torch.ones(1))
    assert "fewer than the 600" in text(599)
    assert "fewer than" not in text(600)
    assert text(600).startswith("50.00 ± 1.00 % (600 tasks, ")


def test_no_tasks_are_refused(blobs: ClassDataset) -> None:
    with pytest.raises(TaskError, match="at least 1 task"):
        evaluate(small(), ClassTasks(blobs, 3, 1), 0)


def test_what_else_a_learner_reports_is_averaged(blobs: ClassDataset) -> None:
    class Counting(ProtoNet):
        tells = True

        def judge(self, task: Task) -> Outcome:
            outcome = super().judge(task)
            metrics = {**outcome.metrics, "ways": torch.tensor(float(task.support.ways))}
            return replace(outcome, metrics=metrics, outputs=outcome.outputs if self.tells else None)

    source = ClassTasks(blobs, (2, 5), 1, query=2)
    learner = Counting(conv4(4, size=16, blocks=2))
    got = evaluate(learner, source, 10)
    assert got.json()["ways"] == np.mean([source.task(i).support.way for i in range(10)])
    assert got.calibration is not None
    learner.tells = False  # nothing then but what it reports
    without = evaluate(learner, source, 10)
    assert (without.accuracy, without.loss, without.metrics) == (got.accuracy, got.loss, got.metrics)
    assert (without.calibration, without.precision) == (None, None)


def test_progress_goes_to_standard_error(
    blobs: ClassDataset, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ClassTasks(blobs, 3, 1, query=2)
    evaluate(small(), source, 3, progress=True)
    assert capsys.readouterr() == ("", "")  # no terminal
    monkeypatch.setenv("FORCE_COLOR", "1")
    evaluate(small(), source, 3, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "evaluating" in err
    evaluate(small(), source, 3)
    assert capsys.readouterr() == ("", "")
