from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import UserError
from quickstudy.inner import estimate
from quickstudy.learners import Reptile
from quickstudy.nets import mlp
from quickstudy.tasks import ClassTasks, Task

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("strategy", ["loop", "vmap"])
@pytest.mark.parametrize(("norm", "momentum"), [("layer", 0.0), ("batch", 0.9), ("support", 0.0)])
def test_the_gradient_is_start_minus_end_of_torchs_adam(
    norm: str, momentum: float, strategy: str, make: Callable[..., Reptile], batch: Task
) -> None:
    learner = make("reptile", norm, steps=6, inner_batch=5, inner_lr=0.02, momentum=momentum)
    prepared = learner.prepare(batch, torch.Generator().manual_seed(3))
    outcome, gradient = estimate(learner, prepared, strategy)
    total = {k: torch.zeros_like(p) for k, p in learner.net.named_parameters()}
    for t, task in enumerate(prepared.unbatch()):
        x, y = torch.cat([task.support.x, task.query.x]), torch.cat([task.support.y, task.query.y])
        net = copy.deepcopy(learner.net)
        optimizer = torch.optim.Adam(net.parameters(), 0.02, betas=(momentum, 0.999))
        for rows in task.extra["rows"]:
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
        torch.testing.assert_close(outcome.metrics["loss"][t], loss.detach(), rtol=1e-8, atol=1e-9)
        for k, p in net.named_parameters():
            total[k] += (learner.net.get_parameter(k) - p).detach() / 3
    for k, wanted in total.items():
        torch.testing.assert_close(gradient[f"net.{k}"], wanted, rtol=1e-7, atol=1e-8, msg=k)


def test_mini_batches_are_drawn_before_the_map(make: Callable[..., Reptile], batch: Task) -> None:
    learner = make("reptile", steps=40, inner_batch=5)
    rows = learner.prepare(batch, torch.Generator().manual_seed(3)).extra["rows"]
    again = learner.prepare(batch, torch.Generator().manual_seed(3)).extra["rows"]
    other = learner.prepare(batch, torch.Generator().manual_seed(4)).extra["rows"]
    assert torch.equal(rows, again)
    assert not torch.equal(rows, other)
    assert rows.shape == (3, 40, 5)
    for mini in rows.flatten(0, 1):  # without replacement
        assert len(mini.unique()) == 5
    assert set(rows.unique().tolist()) == set(range(15))  # support and query rows alike
    assert make("reptile", inner_batch=99).prepare(batch, torch.Generator()).extra["rows"].shape[-1] == 15


def test_padding_is_never_drawn(blobs: ClassDataset) -> None:
    learner = Reptile(mlp(256), way=5, steps=3, inner_batch=50, inner_lr=0.1)
    source = ClassTasks(blobs, (2, 5), (1, 4), (1, 3), ragged=True)
    batch = source.batch(np.arange(12)).to(torch.float64)
    padded = learner.prepare(batch, torch.Generator().manual_seed(0))
    assert padded.padded
    for task in padded.unbatch():
        n = len(task.support.x) + len(task.query.x)
        assert task.extra["rows"].max() < n
        for mini in task.extra["rows"]:
            assert sorted(mini[:n].tolist()) == list(range(n))  # fewer than a mini-batch: all of them
    assert torch.isfinite(estimate(learner, padded, "vmap")[0].loss).all()


@pytest.mark.parametrize("inner_batch", [3, 50])
def test_a_tasks_course_does_not_depend_on_its_neighbours(blobs: ClassDataset, inner_batch: int) -> None:
    learner = Reptile(mlp(256), way=5, steps=3, inner_batch=inner_batch, inner_lr=0.1)
    source = ClassTasks(blobs, (2, 5), (1, 4), (1, 3), ragged=True)
    losses = []
    for indices in ([0, 1], [0, 2, 3], [0]):
        batch = source.batch(np.array(indices)).to(torch.float64)
        prepared = learner.prepare(batch, torch.Generator().manual_seed(1))
        losses.append(learner(next(prepared.unbatch())).loss.item())
    assert losses[0] == losses[1] == losses[2] > 0


def test_in_use_it_takes_test_steps_of_adam_on_the_whole_support_set(
    make: Callable[..., Reptile], batch: Task
) -> None:
    learner = make("reptile", "layer", steps=2, test_steps=7, inner_lr=0.02)
    task = next(batch.unbatch())
    net = copy.deepcopy(learner.net)
    optimizer = torch.optim.Adam(net.parameters(), 0.02, betas=(0.0, 0.999))
    for _ in range(7):
        optimizer.zero_grad()
        F.cross_entropy(net(task.support.x), task.support.y).backward()
        optimizer.step()
    wanted = net(task.query.x).detach()
    torch.testing.assert_close(learner.adapt(task.support)(task.query.x), wanted, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("options", [{"steps": 0}, {"inner_batch": 0}])
def test_nothing_to_do_is_an_error(options: dict[str, int]) -> None:
    with pytest.raises(UserError, match=r"(steps|inner_batch) must be at least 1"):
        Reptile(mlp(4), way=2, **options)


@pytest.mark.parametrize(("momentum", "said"), [(1.0, "must be below 1"), (-0.1, "must be at least 0")])
def test_momentum_is_a_share(momentum: float, said: str) -> None:
    with pytest.raises(UserError, match=f"momentum {said}"):
        Reptile(mlp(4), way=2, momentum=momentum)
