from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from quickstudy.data.dataset import ClassDataset
from quickstudy.inner import estimate, memory
from quickstudy.inner.memory import held_by_graphs, portions
from quickstudy.learners import build
from quickstudy.nets import mlp
from quickstudy.tasks import ClassTasks, Task


@pytest.fixture
def batch(blobs: ClassDataset) -> Task:
    return ClassTasks(blobs, 3, 2, query=2).batch(np.arange(7)).to(torch.float32)


def most(make: Callable[[], object], there: Sequence[torch.Tensor] = ()) -> int:
    with held_by_graphs(there) as held:
        make()
    return held.most


def test_what_graphs_hold() -> None:
    w, x = torch.ones(100, requires_grad=True), torch.ones(50, 100)
    # x for w's gradient; the sines' argument for theirs; w itself is there anyway
    assert most(lambda: (x * w).sin().sum(), [w]) == 4 * (5000 + 5000)
    assert most(lambda: (x * 2).sum(), [w]) == 0
    assert most(lambda: (x * w).sin().sum(), [w, x]) == 4 * 5000
    # What is freed in between does not add up.
    assert most(lambda: [(x * w).sin().sum() for _ in range(3)].clear(), [w, x]) == 4 * 15000

    def in_turn() -> None:
        for _ in range(3):
            (x * w).sin().sum()

    assert most(in_turn, [w, x]) == 4 * 5000


class Witness(torch.autograd.Function):
    """Its input, with something in the graph that Python can watch."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, seen: list[Any]) -> torch.Tensor:
        ctx.thing = type("Thing", (), {})()
        seen.append(weakref.ref(ctx.thing))
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> Any:
        return g, None


def test_no_graph_outlives_the_count() -> None:
    """A saved output would hold its own graph, unseen by Python, if it were kept as it is."""
    w, seen = torch.ones(100, requires_grad=True), []
    most(lambda: torch.log_softmax(Witness.apply(w, seen).exp().relu(), 0).sum())
    gc.collect()
    assert seen[0]() is None


def test_a_counted_graph_is_a_graph() -> None:
    """It can be gone back through twice, counts nothing once it is gone, and refuses what changed since."""
    w, x = torch.rand(10, requires_grad=True), torch.rand(10)

    def second_derivative() -> torch.Tensor:
        (first,) = torch.autograd.grad((x * w).sin().sum(), w, create_graph=True)
        return torch.autograd.grad(first.sum(), w)[0]

    with held_by_graphs() as held:
        torch.testing.assert_close(second_derivative(), -x * x * (x * w).sin())
        assert held.most > held.now == 0
        y = (x * w).sum()
    x.mul_(2)
    with pytest.raises(RuntimeError, match="inplace"):
        torch.autograd.grad(y, w)


class Sines(nn.Module):
    """Its graph holds a number for each of a query: the products whose sines it takes."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(256))

    def forward(self, task: Task) -> torch.Tensor:
        return (task.query.x.flatten(1) * self.w).sin().sum()


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize(("room", "largest"), [(0, 1), (1, 1), (2.5, 2), (3, 3), (7, 7), (100, 7)])
def test_portions_are_all_tasks_in_order_within_the_budget(
    room: float, largest: int, kind: torch.dtype, batch: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, batch = Sines().to(kind), batch.to(kind)
    bytes_a_task = batch.query.x[0].numel() * kind.itemsize
    monkeypatch.setattr(memory, "GRAPHS", int(room * bytes_a_task))
    state = torch.get_rng_state()
    parts = list(portions(learner, batch))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(torch.cat([p.query.x for p in parts]), batch.query.x)
    sizes = [len(p.query.x) for p in parts]
    assert max(sizes) <= largest
    assert max(sizes) - min(sizes) <= 1
    if room >= 7:
        assert sizes == [7]


def test_a_learner_that_lets_nobody_count_is_mapped_all_the_same(batch: Task) -> None:
    class Functional(Sines):
        def forward(self, task: Task) -> torch.Tensor:
            return torch.func.grad(lambda w: (task.query.x.flatten(1) * w).sin().sum())(self.w).sum()

    assert [len(p.query.x) for p in portions(Functional(), batch)] == [7]


def test_a_meta_gradient_in_portions_is_that_of_all(batch: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = build("maml", mlp(256, (4,)), way=3, classes=10).train().double()
    whole, gradient = estimate(learner, batch.to(torch.float64), "vmap")
    monkeypatch.setattr(memory, "GRAPHS", 1)
    parts, same = estimate(learner, batch.to(torch.float64), "vmap")
    torch.testing.assert_close(parts.loss, whole.loss)
    assert parts.metrics["accuracy"].shape == (7,)
    for k, g in gradient.items():
        torch.testing.assert_close(same[k], g)
