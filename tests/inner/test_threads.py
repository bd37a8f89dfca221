from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import UserError
from quickstudy.inner import estimate
from quickstudy.inner.threads import each_task, replica
from quickstudy.learners import LEARNERS, build
from quickstudy.nets import conv4
from quickstudy.tasks import ClassTasks, Task


@pytest.fixture
def batch(blobs: ClassDataset) -> Task:
    return ClassTasks(blobs, 3, 2, query=2).batch(np.arange(7)).to(torch.float32)


@pytest.fixture(autouse=True)
def two_threads() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def drawn(net: nn.Module, task: Task) -> tuple[str, float]:
    time.sleep(0.01)
    return threading.current_thread().name, float(task.support.x.sum())


def test_results_come_in_order_from_several_threads(batch: Task) -> None:
    net = nn.Linear(1, 1)
    alone = list(each_task(drawn, net, batch, threads=1))
    assert {name for name, _ in alone} == {"MainThread"}
    for _ in range(2):  # the first time as any other
        names, sums = zip(*each_task(drawn, net, batch), strict=True)
        assert list(sums) == [s for _, s in alone]
        assert len(set(names)) == 2
        assert "MainThread" not in names


@pytest.mark.parametrize("name", [k for k, kind in LEARNERS.items() if kind.trains_on == "tasks"])
def test_the_meta_gradient_is_the_loops_bit_for_bit(name: str, batch: Task) -> None:
    torch.manual_seed(0)
    learner = build(name, conv4(4, size=16), way=3, classes=10).train()
    prepared = learner.prepare(batch, torch.Generator().manual_seed(0))
    torch.set_num_threads(1)
    outcome, wanted = estimate(learner, prepared, "loop")
    torch.set_num_threads(2)
    for _ in range(3):
        found, gradient = estimate(learner, prepared, "threads")
        assert torch.equal(found.loss, outcome.loss)
        assert all(torch.equal(gradient[k], v) for k, v in wanted.items())
        assert all(torch.equal(found.stats[k], v) for k, v in outcome.stats.items())


def test_a_replica_shares_weights_and_nothing_else() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    net.add_module("tied", nn.Linear(2, 2))
    net.tied.weight = net[0].weight
    other = replica(net)
    assert [n for n, _ in other.named_parameters()] == [n for n, _ in net.named_parameters()]
    assert other.tied.weight is other[0].weight
    with torch.no_grad():
        net[0].weight.fill_(3.0)
        net[1].running_mean.fill_(4.0)
    assert (other[0].weight == 3).all()
    assert (other[1].running_mean == 4).all()
    torch.func.functional_call(other, {"0.weight": torch.zeros(2, 2)}, (torch.ones(2, 2),))
    assert (net[0].weight == 3).all()


def test_a_net_that_draws_stays_in_the_loop(batch: Task) -> None:
    net = nn.Dropout(0.5).train()

    def draw(net: nn.Module, task: Task) -> tuple[str, float]:
        return threading.current_thread().name, float(net(task.support.x).sum())

    results = []
    for _ in range(3):
        torch.manual_seed(0)
        results.append(list(each_task(draw, net, batch)))
    assert results[0] == results[1] == results[2]
    assert {name for name, _ in results[2]} == {"MainThread"}


def test_a_net_that_draws_only_later_is_refused(batch: Task) -> None:
    net, drawing = nn.Linear(1, 1), False

    def sometimes(net: nn.Module, task: Task) -> float:
        return float(torch.rand(())) if drawing else 0.0

    list(each_task(sometimes, net, batch))
    drawing = True
    with pytest.raises(UserError, match=r"draws by chance in some tasks only: use strategy=\"loop\""):
        list(each_task(sometimes, net, batch))


def test_a_mistake_in_one_task_ends_all(batch: Task) -> None:
    net, done = nn.Linear(1, 1), []

    def fail(net: nn.Module, task: Task) -> None:
        if done:
            time.sleep(0.02)
            done.append(task)
            raise ValueError("here")

    list(each_task(fail, net, batch))
    done.append(batch)
    with pytest.raises(ValueError, match="here"):
        list(each_task(fail, net, batch))
    count = len(done)
    time.sleep(0.1)
    assert len(done) == count < 8


def test_what_cannot_be_copied_is_told(batch: Task) -> None:
    net = nn.Linear(1, 1)
    list(each_task(lambda net, task: 0, net, batch))
    net.lock = threading.Lock()
    with pytest.raises(UserError, match="Linear cannot be copied for a thread of its own"):
        list(each_task(lambda net, task: 0, net, batch))


def test_threads_of_operations_are_as_before(batch: Task) -> None:
    net = nn.Linear(1, 1)
    inside = [list(each_task(lambda net, task: torch.get_num_threads(), net, batch)) for _ in range(2)][1]
    assert set(inside) == {1}
    assert torch.get_num_threads() == 2


def test_threads_that_begin_later_compute_as_before(batch: Task) -> None:
    """torch hands the number that any thread set last to all that begin after."""
    list(each_task(drawn, nn.Linear(1, 1), batch))
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert found == [2]


def test_dropout_that_begins_later_is_seen(batch: Task) -> None:
    """Once a layer draws, tasks are taken in turn."""
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.0))

    def names(net: nn.Module, task: Task) -> str:
        net(task.support.x)
        return drawn(net, task)[0]

    assert len(set(each_task(names, net, batch))) > 1
    net[1].p = 0.5
    assert set(each_task(names, net, batch)) == {threading.current_thread().name}
