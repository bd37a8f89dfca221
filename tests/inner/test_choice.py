from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from quickstudy.data.dataset import ClassDataset
from quickstudy.inner import choice, estimate
from quickstudy.inner.choice import Count, choose
from quickstudy.learners import build
from quickstudy.nets import conv4, mlp, native
from quickstudy.tasks import ClassTasks, Task


@pytest.fixture
def batch(blobs: ClassDataset) -> Task:
    return ClassTasks(blobs, 3, 2, query=2).batch(np.arange(4)).to(torch.float32)


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_small_operations_are_joined_and_large_ones_are_not(batch: Task, threads: int) -> None:
    singly = "loop" if threads == 1 else "threads"
    for body, kernels, wanted in (
        (mlp(256, (2,)), False, "vmap"),
        (mlp(256, (1024, 1024)), False, singly),
        (conv4(64, size=16), True, "vmap"),
    ):
        if kernels and not native.build():
            continue
        learner = build("maml", body, way=3, classes=10).train()
        tried = []

        def attempt(tasks: Task, how: Any, learner: Any = learner, tried: Any = tried) -> None:
            tried.append((len(tasks.support.x), how))
            estimate(learner, tasks, how)

        with native.allowing(kernels):
            assert [choose(attempt, learner, batch) for _ in range(3)] == [wanted] * 3
        measured, possible = [] if kernels else [(1, "loop")], [(2, "vmap")] if wanted == "vmap" else []
        assert tried == measured + possible  # once, not three times


def test_what_cannot_be_vectorised_is_not(batch: Task, threads: int) -> None:
    class Branching(nn.Module):
        features = 2

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(256, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            z = self.layer(x.flatten(1))
            return z if z.sum() > 0 else -z

    learner = build("protonet", Branching(), way=3, classes=10).train()
    state = torch.get_rng_state()
    assert choose(lambda t, how: estimate(learner, t, how), learner, batch) != "vmap"
    assert torch.equal(torch.get_rng_state(), state)
    auto, loop = (estimate(learner, batch, how)[1]["body.layer.weight"] for how in ("auto", "loop"))
    torch.testing.assert_close(auto, loop)


def test_a_mean_of_the_numbers_that_operations_make() -> None:
    x = torch.zeros(10)
    with Count() as count:
        x + 1, x.sum()
    assert (count.operations, count.numbers_an_operation) == (2, 5.5)
    assert Count().numbers_an_operation == 0


def test_training_and_use_are_chosen_apart(batch: Task) -> None:
    learner = build("protonet", mlp(256, (2,)), way=3, classes=10)
    for mode in (True, False):
        choose(lambda t, how: estimate(learner, t, how), learner.train(mode), batch)
    assert len(choice._chosen[learner]) == 2


def test_a_warning_of_the_nets_own_changes_nothing(batch: Task) -> None:
    class Outdated(nn.Module):
        features = 256

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(256, 256)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            warnings.warn("old", DeprecationWarning, stacklevel=2)
            return self.layer(x.flatten(1))

    learner = build("maml", Outdated(), way=3, classes=10).train()
    with pytest.warns(DeprecationWarning, match="old"):
        assert choose(lambda t, how: estimate(learner, t, how), learner, batch) == "vmap"


def test_attention_is_mapped(batch: Task) -> None:
    """The fused kernel warns that a map falls back to a slow loop, and so it is not used in one."""

    class Attending(nn.Module):
        features = 256

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.MultiheadAttention(16, 2, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.flatten(1).view(-1, 16, 16)
            return self.layer(x, x, x, need_weights=False)[0].flatten(1)

    learner = build("maml", Attending(), way=3, classes=10).train()
    assert choose(lambda t, how: estimate(learner, t, how), learner, batch) == "vmap"
    vmap, loop = (
        estimate(learner, batch, how)[1]["net.body.layer.in_proj_weight"] for how in ("vmap", "loop")
    )
    torch.testing.assert_close(vmap, loop, rtol=1e-4, atol=1e-6)
