"""The mean and its interval against numpy, and which tasks are measured."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quickstudy.data import ClassDataset
from quickstudy.errors import TaskError, UserError
from quickstudy.inner.mapping import Strategy
from quickstudy.learners import PixelNN, ProtoNet
from quickstudy.nets import mlp
from quickstudy.outer import Measurement, measure, meta_train
from quickstudy.outer.measure import collect
from quickstudy.tasks import ClassTasks, FrozenTasks, SupervisedBatches


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


@pytest.mark.parametrize("strategy", ["loop", "threads", "vmap"])
@pytest.mark.parametrize("chunk", [1, 3, 20])
def test_it_is_the_plain_loop_over_the_first_tasks(
    strategy: Strategy, chunk: int, problem: ClassTasks, learner: ProtoNet
) -> None:
    expected = []
    for i in range(7):
        task = problem.task(i)
        logits = learner.adapt(task.support)(task.query.x)
        expected.append(float((logits.argmax(-1) == task.query.y).float().mean()))
    found = measure(learner, problem, 7, strategy=strategy, chunk=chunk)
    assert found.values["accuracy"].tolist() == pytest.approx(expected)
    sizes: list[int] = []
    collect(
        learner,
        problem,
        7,
        lambda learner, task: {"n": task.query.y.sum()},
        lambda batch, found: sizes.append(len(found["n"])),
        strategy=strategy,
        chunk=chunk,
    )
    assert sizes == [min(chunk, 7 - i) for i in range(0, 7, chunk)]


def test_the_learner_stays_as_it_is(problem: ClassTasks, learner: ProtoNet) -> None:
    before = {k: v.clone() for k, v in learner.state_dict().items()}
    for training in (True, False):
        learner.train(training)
        seen = []

        def judge(learner: ProtoNet, task: object, seen: list[bool] = seen) -> dict[str, torch.Tensor]:
            seen.append(learner.training or torch.is_grad_enabled())
            return {"a": torch.zeros(())}

        collect(learner, problem, 2, judge, lambda batch, found: None, strategy="loop")
        assert seen == [False, False]
        assert learner.training is training
    assert all(torch.equal(before[k], v) for k, v in learner.state_dict().items())


def test_tasks_come_in_the_learners_type(problem: ClassTasks, learner: ProtoNet) -> None:
    wanted = measure(learner, problem, 4).values["loss"]
    found = measure(learner.double(), problem, 4).values["loss"]
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, wanted.double(), rtol=1e-4, atol=1e-4)
    assert not torch.equal(found, wanted.double())


def test_another_thread_has_its_turn_between_chunks(problem: ClassTasks, learner: ProtoNet) -> None:
    predictor, x = learner.adapt(problem.task(0).support), problem.task(0).query.x
    answers = []

    with ThreadPoolExecutor(1) as pool:

        def ask(batch: object, found: object) -> None:
            answers.append(pool.submit(predictor, x).result(timeout=10))

        collect(learner, problem, 2, lambda learner, task: {"a": torch.zeros(())}, ask, chunk=1)
    assert len(answers) == 2


def test_the_mode_is_put_back_after_an_error(problem: ClassTasks, learner: ProtoNet) -> None:
    def fail(learner: object, task: object) -> dict[str, torch.Tensor]:
        raise ZeroDivisionError

    learner.train()
    with pytest.raises(ZeroDivisionError):
        collect(learner, problem, 2, fail, lambda batch, found: None)
    assert learner.training


def test_no_task_is_no_measurement(problem: ClassTasks, learner: ProtoNet) -> None:
    with pytest.raises(TaskError, match="at least 1 task"):
        measure(learner, problem, 0)


def test_a_saved_set_is_not_asked_for_more_than_it_holds(
    problem: ClassTasks, learner: ProtoNet, tmp_path: Path
) -> None:
    problem.save(tmp_path / "tasks", 3)
    saved = FrozenTasks(problem.data, tmp_path / "tasks")
    assert measure(learner, saved, 3).tasks == 3
    with pytest.raises(TaskError, match="4 tasks are asked for, but there are 3"):
        measure(learner, saved, 4)


def test_batches_without_a_support_set_are_refused(blobs: ClassDataset) -> None:
    with pytest.raises(TaskError, match="no support set"):
        measure(PixelNN(), SupervisedBatches(blobs), 2)


@pytest.mark.parametrize("strategy", ["loop", "threads", "vmap"])
def test_pictures_that_the_net_does_not_fit_are_told_by_their_shape(
    strategy: Strategy, problem: ClassTasks
) -> None:
    learner, told = ProtoNet(mlp(50)), r"the net failed on examples of shape \(1, 16, 16\): .*shapes cannot"
    with pytest.raises(UserError, match=told):
        measure(learner, problem, 2, strategy=strategy)
    with pytest.raises(UserError, match=told):
        meta_train(learner, problem, iterations=1, strategy=strategy)
