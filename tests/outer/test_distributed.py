"""Many processes do together what one does: the same steps, the same numbers, every task once."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quickstudy.data import ClassDataset
from quickstudy.errors import NonFiniteError, ProcessError, UserError
from quickstudy.evaluation import evaluate
from quickstudy.learners import MAML, Learner, ProtoNet, Reptile
from quickstudy.nets import conv4, mlp
from quickstudy.outer import History, meta_train
from quickstudy.outer.config import TrainConfig
from quickstudy.outer.device import find_device
from quickstudy.outer.distributed import World, joined, world
from quickstudy.outer.measure import measure
from quickstudy.outer.meta_train import meta_gradient
from quickstudy.outer.run_folder import RunFolder
from quickstudy.outer.session import train
from quickstudy.tasks import ClassTasks, Task

Together = Callable[..., list[Any]]
Quick = Callable[..., TrainConfig]
Outcome = Callable[[Path], dict[str, Any]]

# A forked child runs no thread of its parent's, of which the warning speaks.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@given(st.integers(0, 200), st.integers(1, 20))
def test_shares_are_a_partition_in_order(n: int, size: int) -> None:
    shares = [World(rank, size).share(n) for rank in range(size)]
    assert [i for share in shares for i in share] == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_mean_weighs_every_task_alike(together: Together) -> None:
    values = [[1.0, 2.0, 6.0], [float("nan")], [5.0]]  # the second has no task of its own
    owns = [3, 0, 1]

    def work(rank: int) -> list[Tensor]:
        mean = torch.tensor(values[rank]).mean()
        return world().mean([mean, mean.double().repeat(2, 2)], owns[rank], 4)

    for scalar, matrix in together(3, work):
        assert scalar == 3.5
        assert matrix.dtype == torch.float64
        assert (matrix == 3.5).all()


def maml(blobs: ClassDataset) -> MAML:
    return MAML(mlp(256, (6,)), way=3, inner_lr=0.1, steps=2)


def running_maml(blobs: ClassDataset) -> MAML:
    return MAML(conv4(3, size=16, norm="running"), way=3, inner_lr=0.1, steps=1)


def reptile(blobs: ClassDataset) -> Reptile:
    """Draws its mini-batches in `prepare`; tasks are vectorised."""
    return Reptile(mlp(256, (6,)), way=3, inner_lr=0.01, steps=3, inner_batch=4, test_steps=2)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("make", "size", "meta_batch"),
    [(maml, 2, 4), (maml, 3, 5), (maml, 3, 2), (running_maml, 2, 3), (reptile, 2, 5)],
    ids=["even", "uneven", "one has none", "running averages", "reptile"],
)
def test_fifty_meta_steps_equal_those_of_one_process(
    make: Callable[[ClassDataset], Learner],
    size: int,
    meta_batch: int,
    blobs: ClassDataset,
    together: Together,
) -> None:
    tasks = ClassTasks(blobs, way=3, shot=1, query=2)
    torch.manual_seed(0)
    begun = make(blobs)

    def work(rank: int) -> tuple[dict[str, Tensor], History]:
        torch.manual_seed(rank)  # who begins elsewhere follows the first
        learner = make(blobs)
        history = meta_train(
            learner,
            tasks,
            validation=ClassTasks(blobs, way=3, shot=1, query=2, seed=1),
            validation_tasks=7,
            validate_every=25,
            iterations=50,
            meta_batch=meta_batch,
        )
        return learner.state_dict(), history

    alone, expected = work(0)
    weights, histories = zip(*together(size, work), strict=True)
    moved = max(float((alone[k] - v).abs().max()) for k, v in begun.state_dict().items() if v.numel())
    assert moved > 1e-3
    for k, v in alone.items():
        assert all(torch.equal(found[k], weights[0][k]) for found in weights), k
        assert float((weights[0][k] - v).abs().max()) <= 1e-8, k
    for history in histories:
        assert history.records == histories[0].records
        for record, other in zip(history.records, expected.records, strict=True):
            assert record == pytest.approx(other, abs=1e-8)


@pytest.mark.parametrize("strategy", ["loop", "vmap"])
def test_a_meta_gradient_in_float32(strategy: Any, blobs: ClassDataset, together: Together) -> None:
    tasks = ClassTasks(blobs, way=5, shot=1, query=3)
    learner = MAML(conv4(4, size=16), way=5, inner_lr=0.1, steps=2)

    def work(rank: int) -> dict[str, Tensor]:
        return meta_gradient(learner, tasks, 3, 10, strategy, seed=0)[1]

    def flat(gradient: dict[str, Tensor]) -> Tensor:
        return torch.cat([g.flatten() for g in gradient.values()])

    expected, found = flat(work(0)), [flat(g) for g in together(3, work)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert expected.dtype == torch.float32
    assert float((found[0] - expected).norm() / expected.norm()) < 1e-5


class Counted:
    """A source that notes which tasks were asked for."""

    def __init__(self, source: ClassTasks) -> None:
        self.source, self.asked, self.data = source, [], source.data

    def batch(self, indices: np.ndarray) -> Task:
        self.asked += indices.tolist()
        return self.source.batch(indices)

    def describe(self) -> dict[str, Any]:
        return self.source.describe()


@pytest.mark.parametrize(("size", "n_tasks", "query"), [(2, 47, 3), (3, 2, 3), (2, 9, (1, 4))])
def test_evaluation_counts_every_task_once(
    size: int, n_tasks: int, query: Any, blobs: ClassDataset, together: Together
) -> None:
    learner = ProtoNet(mlp(256, (6,))).double()
    source = ClassTasks(blobs, way=4, shot=1, query=query, seed=5)

    def work(rank: int) -> Any:
        counted, again = Counted(source), Counted(source)
        measured = measure(learner, counted, n_tasks)
        return counted.asked, again.asked, measured.values, evaluate(learner, again, n_tasks)

    asked, again, values, evaluations = zip(*together(size, work), strict=True)
    for lists in (asked, again):
        assert sorted(i for one in lists for i in one) == list(range(n_tasks))
    expected, evaluation = work(0)[2:]
    for found in values:
        for k, v in expected.items():
            torch.testing.assert_close(found[k], v, rtol=0, atol=1e-12)
    for each in evaluations:
        assert each == evaluations[0]
        assert each.confusion == evaluation.confusion
        for name, value in evaluation.json().items():
            assert each.json()[name] == (pytest.approx(value) if isinstance(value, float) else value)


def test_a_mistake_of_one_ends_all_with_one_error(
    blobs: ClassDataset, together: Together, tmp_path: Path
) -> None:
    """The second fails in its fourth meta-step; the first is told by the connection, not by a timeout."""
    tasks, learner = ClassTasks(blobs, way=3, shot=1), maml(blobs)
    begun = time.monotonic()

    def work(rank: int) -> None:
        class Failing(Counted):
            def batch(self, indices: np.ndarray) -> Task:
                if rank == 1 and indices[0] >= 4 * 3:
                    raise UserError("no such task")
                return super().batch(indices)

        meta_train(learner, Failing(tasks), iterations=50, meta_batch=4, run=tmp_path / "run")

    first, second = together(2, work)
    assert isinstance(first, SystemExit)
    assert first.code == 2
    assert str(second) == "no such task"
    assert isinstance(second, UserError)
    assert time.monotonic() - begun < 30
    # What the first had done was kept before it left.
    assert RunFolder(tmp_path / "run").load("checkpoint.safetensors")[1]["iteration"] == 3


def test_a_mistake_of_all_is_told_once(blobs: ClassDataset, together: Together) -> None:
    def work(rank: int) -> None:
        learner = maml(blobs)
        with torch.no_grad():
            next(learner.parameters()).fill_(float("nan"))
        meta_train(learner, ClassTasks(blobs, way=3, shot=1), iterations=5)

    errors = together(2, work)
    assert sorted(type(e).__name__ for e in errors) == ["NonFiniteError", "SystemExit"]
    (told,) = (e for e in errors if isinstance(e, NonFiniteError))
    assert "at meta-step 1;" in str(told)


def test_a_process_that_vanishes_is_told(blobs: ClassDataset, together: Together, tmp_path: Path) -> None:
    def work(rank: int) -> None:
        world().gathered([rank])
        if rank == 1:
            torch.save(None, tmp_path / "result-1")
            os.kill(os.getpid(), signal.SIGKILL)
        world().gathered([rank])

    left, _ = together(2, work)
    assert isinstance(left, ProcessError)
    assert "another process of this run has ended" in str(left)


def test_other_data_on_another_machine_are_refused(
    quick: Quick, together: Together, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from quickstudy.data import digits

    def work(rank: int) -> None:
        data = digits(size=8).limit(12 + rank)
        monkeypatch.setattr("quickstudy.outer.config.load_data", lambda *a, **k: data)
        train(quick(), tmp_path / "run")

    first, second = together(2, work)
    assert isinstance(first, SystemExit)
    assert "process 1 found other data than process 0 (splits)" in str(second)


def test_only_the_first_writes_and_shows(
    quick: Quick, together: Together, tmp_path: Path, outcome: Outcome
) -> None:
    said: dict[str, list[Any]] = {"log": [], "say": []}

    def work(rank: int) -> dict[str, list[Any]]:
        # A folder that only the first machine has: another would make its own.
        train(
            quick(meta_batch=3),
            tmp_path / str(rank),
            log=said["log"].append,
            say=said["say"].append,
            resume=True,
        )
        return said

    first, second = together(2, work)
    assert len(first["log"]) == 3
    assert second["log"] == []
    assert (tmp_path / "0" / "summary.json").exists()
    assert not (tmp_path / "1").exists()


def test_a_run_goes_on_in_all_processes(
    quick: Quick, every_step: None, together: Together, tmp_path: Path, outcome: Outcome
) -> None:
    """Interrupted in one process, then in the other: all follow the first, which alone has the folder."""
    config = quick(iterations=8, patience=3, schedule="linear", optimizer="adamw", meta_batch=3)
    module = sys.modules["quickstudy.outer.meta_train"]
    estimate, calls = module.estimate, 0

    def stopping(who: int, at: int | None) -> Callable[[int], None]:
        def work(rank: int) -> None:
            nonlocal calls
            calls = 0

            def stopped(*args: Any) -> Any:
                nonlocal calls
                calls += 1
                if rank == who and calls == at:
                    raise KeyboardInterrupt
                return estimate(*args)

            module.estimate = stopped
            train(config, tmp_path / ("run" if at else "unbroken") / str(rank), resume=True)

        return work

    assert together(2, stopping(0, None)) == [None, None]
    for who, at in ((0, 4), (1, 2), (1, 3)):
        assert all(isinstance(e, (KeyboardInterrupt, SystemExit)) for e in together(2, stopping(who, at)))
    assert together(2, stopping(0, 99)) == [None, None]
    assert outcome(tmp_path / "run" / "0") == outcome(tmp_path / "unbroken" / "0")


def test_each_process_has_the_gpu_of_its_number(together: Together, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(rank: int) -> list[Any]:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch, "empty", lambda *a, **k: None)
        found = []
        for name in (None, "cuda", "cuda:0", "cpu"):
            try:
                found.append(str(find_device(name)))
            except UserError as error:
                found.append(str(error))
        return found

    lonely = "2 processes for 1 GPUs: start one for each, or give --device cpu"
    assert together(2, work) == [["cuda", "cuda", "cuda:0", "cpu"], [lonely, lonely, lonely, "cpu"]]


def test_without_torchrun_nothing_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "nowhere", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with joined() as here:
        assert here == World(0, 1)


def test_nobody_to_meet_is_told(free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import timedelta

    monkeypatch.setattr(sys.modules["quickstudy.outer.distributed"], "TIMEOUT", timedelta(seconds=1))
    told = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port)}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(UserError, match=f"cannot meet the other processes at 127.0.0.1:{free_port}"),
        joined(),
    ):
        pass
