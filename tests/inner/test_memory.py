from __future__ import annotations

import numpy as np
import pytest
import torch

from quickstudy.data.dataset import ClassDataset
from quickstudy.inner import estimate, memory
from quickstudy.inner.memory import held_by_graph, portions
from quickstudy.learners import build
from quickstudy.nets import mlp
from quickstudy.tasks import ClassTasks, Task


@pytest.fixture
def batch(blobs: ClassDataset) -> Task:
    return ClassTasks(blobs, 3, 2, query=2).batch(np.arange(7)).to(torch.float32)


def test_what_a_graph_holds() -> None:
    w, x = torch.ones(100, requires_grad=True), torch.ones(50, 100)
    # x for w's gradient; the sines' argument for theirs; w itself is there anyway
    assert held_by_graph(lambda: (x * w).sin().sum(), [w]) == 4 * (5000 + 5000)
    assert held_by_graph(lambda: (x * 2).sum(), [w]) == 0


@pytest.mark.parametrize("room", [0, 1, 2.5, 3, 7, 100])
def test_portions_are_all_tasks_in_order_within_the_budget(
    room: float, batch: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = build("maml", mlp(256, (4,)), way=3, classes=10).train()
    one = held_by_graph(lambda: learner(next(batch.unbatch())), learner.parameters())
    monkeypatch.setattr(memory, "GRAPHS", max(1, int(room * one)))
    state = torch.get_rng_state()
    parts = list(portions(learner, learner, batch))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(torch.cat([p.query.x for p in parts]), batch.query.x)
    sizes = [len(p.query.x) for p in parts]
    assert max(sizes) <= max(1, room)
    assert max(sizes) - min(sizes) <= 1
    if room >= 7:
        assert sizes == [7]


def test_a_meta_gradient_in_portions_is_that_of_all(batch: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = build("maml", mlp(256, (4,)), way=3, classes=10).train().double()
    whole, gradient = estimate(learner, batch.to(torch.float64), "vmap")
    monkeypatch.setattr(memory, "GRAPHS", 1)
    parts, same = estimate(learner, batch.to(torch.float64), "vmap")
    torch.testing.assert_close(parts.loss, whole.loss)
    assert parts.metrics["accuracy"].shape == (7,)
    for k, g in gradient.items():
        torch.testing.assert_close(same[k], g)
