from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from quickstudy.errors import UserError
from quickstudy.inner import Outcome, Strategy, estimate, map_tasks
from quickstudy.learners import MAML, PixelNN
from quickstudy.nets import mlp
from quickstudy.tasks import Lines, Task

pytestmark = pytest.mark.usefixtures("float64")


class Line(nn.Module):
    """Written for one task: a line w·x + b judged on the query set; `unused` and `frozen` do nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.b, self.unused = (nn.Parameter(torch.randn(1)) for _ in range(3))
        self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, task: Task) -> Outcome:
        error = self.w * task.query.x + self.b * self.frozen - task.query.y
        loss = error.square().mean()
        return Outcome(loss, {"loss": loss, "worst": error.abs().max()}, {"mean": task.query.y.mean(0)})


def batch() -> Task:
    return Lines(shot=2, query=5).batch(np.arange(6)).to(torch.float64)


@pytest.mark.parametrize("strategy", ["loop", "vmap"])
def test_against_the_formula(strategy: str) -> None:
    learner, tasks = Line(), batch()
    outcome, gradient = estimate(learner, tasks, strategy)
    with torch.no_grad():
        error = learner.w * tasks.query.x + learner.b - tasks.query.y  # [T, Q, 1]
    torch.testing.assert_close(outcome.loss, error.square().mean((1, 2)))
    torch.testing.assert_close(outcome.metrics["loss"], outcome.loss)
    torch.testing.assert_close(outcome.metrics["worst"], error.abs().amax((1, 2)))
    torch.testing.assert_close(outcome.stats["mean"], tasks.query.y.mean(1))
    torch.testing.assert_close(gradient["w"], (2 * error * tasks.query.x).mean().reshape(1))
    torch.testing.assert_close(gradient["b"], (2 * error).mean().reshape(1))
    assert gradient["unused"].item() == 0
    assert set(gradient) == {"w", "b", "unused"}
    everything = [outcome.loss, *outcome.metrics.values(), *outcome.stats.values(), *gradient.values()]
    assert not any(t.requires_grad for t in everything)
    assert all(p.grad is None for p in learner.parameters())


def test_in_a_loop_one_tasks_graph_is_freed_before_the_next() -> None:
    alive: list[weakref.ref[Tensor]] = []
    counts = []

    class Watched(Line):
        def forward(self, task: Task) -> Outcome:
            counts.append(sum(ref() is not None for ref in alive))
            hidden = self.w * task.query.x
            alive.append(weakref.ref(hidden))
            return Outcome((hidden * hidden).sum())  # a product keeps what it multiplies for the way back

    gc.disable()
    try:
        estimate(Watched(), batch(), "loop")
    finally:
        gc.enable()
    assert counts == [0] * 6


def test_a_learner_without_parameters_is_refused() -> None:
    with pytest.raises(UserError, match="PixelNN has no parameter to train"):
        estimate(PixelNN(), batch())


class Checkpointed(Line):
    """Keeps of its graph the ends only: what torch cannot do inside a map, which it says on the way back."""

    def forward(self, task: Task) -> Outcome:
        error = checkpoint(self.errors, task.query.x, task.query.y, use_reentrant=False)
        return Outcome(error.square().mean())

    def errors(self, x: Tensor, y: Tensor) -> Tensor:
        return (self.w * x).sin() + self.b - y


def test_what_fails_on_the_way_back_of_a_map_says_why_and_auto_goes_on_without() -> None:
    learner, tasks = Checkpointed(), batch()
    wanted = estimate(learner, tasks, "loop")[1]
    with pytest.raises(UserError, match=r"cannot be vectorised.*as torch\.utils\.checkpoint does; use"):
        estimate(learner, tasks, "vmap")
    for name, gradient in estimate(learner, tasks, "auto")[1].items():
        torch.testing.assert_close(gradient, wanted[name])


@pytest.mark.parametrize("strategy", ["loop", "vmap", "auto"])
def test_no_tasks_are_refused(strategy: Strategy) -> None:
    batch = Lines(shot=3).batch(np.arange(2))
    none = batch.with_tensors({k: v[:0] for k, v in batch.tensors().items()})
    with pytest.raises(UserError, match="a batch of no tasks"):
        estimate(MAML(mlp(1), way=1), none, strategy)
    with pytest.raises(UserError, match="a batch of no tasks"):
        map_tasks(lambda net, task: {"z": net(task.support.x)}, nn.Linear(1, 1), none, strategy)
