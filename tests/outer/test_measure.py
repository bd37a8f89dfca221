"""The mean and its interval against numpy, and which tasks are measured."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quickstudy.data import ClassDataset
from quickstudy.errors import TaskError
from quickstudy.learners import ProtoNet
from quickstudy.nets import mlp
from quickstudy.outer import Measurement, measure
from quickstudy.tasks import ClassTasks


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=2, max_size=50))
def test_mean_and_interval_are_numpys(values: list[float]) -> None:
    m = Measurement({"a": torch.tensor(values)})
    x = np.array(values, np.float64)
    assert m.tasks == len(values)
    assert m.mean("a") == pytest.approx(x.mean(), abs=1e-9)
    assert m.ci95("a") == pytest.approx(1.96 * x.std(ddof=1) / np.sqrt(len(x)), abs=1e-9)


def test_one_task_has_no_interval() -> None:
    assert Measurement({"a": torch.ones(1)}).ci95("a") == math.inf


def test_the_interval_holds_the_mean_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        m = Measurement({"a": torch.from_numpy(rng.uniform(size=50))})
        held += abs(m.mean("a") - 0.5) < m.ci95("a")
    assert 920 <= held <= 970


@pytest.fixture
def problem(blobs: ClassDataset) -> ClassTasks:
    return ClassTasks(blobs, way=4, shot=1, query=3, seed=7)


@pytest.fixture
def learner() -> ProtoNet:
    return ProtoNet(mlp(256, (8,)))


@pytest.mark.parametrize("strategy", ["loop", "vmap"])
@pytest.mark.parametrize("chunk", [1, 3, 20])
def test_it_is_the_plain_loop_over_the_first_tasks(
    strategy: str, chunk: int, problem: ClassTasks, learner: ProtoNet
) -> None:
    expected = []
    for i in range(7):
        task = problem.task(i)
        logits = learner.adapt(task.support)(task.query.x)
        expected.append(float((logits.argmax(-1) == task.query.y).float().mean()))
    ticks: list[int] = []
    found = measure(learner, problem, 7, strategy=strategy, chunk=chunk, tick=ticks.append)  # type: ignore[arg-type]
    assert found.values["accuracy"].tolist() == pytest.approx(expected)
    assert ticks == [min(7, i + chunk) for i in range(0, 7, chunk)]


def test_the_learner_stays_as_it_is(problem: ClassTasks, learner: ProtoNet) -> None:
    before = {k: v.clone() for k, v in learner.state_dict().items()}
    for training in (True, False):
        learner.train(training)
        seen = []

        def judge(task: object, seen: list[bool] = seen) -> dict[str, torch.Tensor]:
            seen.append(learner.training or torch.is_grad_enabled())
            return {"a": torch.zeros(())}

        measure(learner, problem, 2, function=judge, strategy="loop")
        assert seen == [False, False]
        assert learner.training is training
    assert all(torch.equal(before[k], v) for k, v in learner.state_dict().items())


def test_the_mode_is_put_back_after_an_error(problem: ClassTasks, learner: ProtoNet) -> None:
    def fail(task: object) -> dict[str, torch.Tensor]:
        raise ZeroDivisionError

    learner.train()
    with pytest.raises(ZeroDivisionError):
        measure(learner, problem, 2, function=fail)
    assert learner.training


def test_no_task_is_no_measurement(problem: ClassTasks, learner: ProtoNet) -> None:
    with pytest.raises(TaskError, match="at least 1 task"):
        measure(learner, problem, 0)
