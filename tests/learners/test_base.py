"""What every learner promises, whatever its method."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import UserError
from quickstudy.inner import estimate, map_tasks
from quickstudy.learners import LEARNERS, PixelNN, ProtoNet, build
from quickstudy.learners.calling import width
from quickstudy.learners.targets import task_loss
from quickstudy.nets import BatchNorm, mlp
from quickstudy.tasks import ClassTasks, SupervisedBatches, Task

from .common import ALL, DESCENDING, Make, close, few_steps

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("norm", ["support", "batch", "running", "group", "layer", "none"])
def test_vmap_equals_the_loop_over_tasks(name: str, norm: str, make: Make, batch: Task) -> None:
    learner = few_steps(name, make, norm)
    prepared = learner.prepare(batch, torch.Generator().manual_seed(0))
    (loop, loop_gradient), (vmap, vmap_gradient) = (estimate(learner, prepared, s) for s in ("loop", "vmap"))
    # Adam without momentum divides mere rounding by its own size where a bias has no influence.
    tolerance = 1e-8 if name == "reptile" else 1e-10
    close(vmap.loss, loop.loss, "loss", tolerance)
    for ours, theirs in (
        (vmap.metrics, loop.metrics),
        (vmap.stats, loop.stats),
        (vmap_gradient, loop_gradient),
    ):
        assert ours.keys() == theirs.keys()
        for k in ours:
            close(ours[k], theirs[k], k, tolerance)
    assert any(".mean" in k for k in loop.stats) == (norm in ("support", "batch", "running"))


@pytest.mark.parametrize("name", ALL)
def test_evaluation_by_vmap_equals_the_loop(name: str, make: Make, batch: Task) -> None:
    learner = few_steps(name, make).eval()
    with torch.no_grad():
        loop, vmap = (
            map_tasks(lambda net, task: net.judge(task).metrics, learner, batch, s) for s in ("loop", "vmap")
        )
    assert set(loop) >= {"loss", "accuracy"}
    for k in loop:
        close(vmap[k], loop[k], k)


@pytest.mark.parametrize("name", ["pretrain-finetune", "pretrain-centroid"])
def test_pretraining_by_vmap_equals_the_loop(name: str, make: Make, blobs: ClassDataset) -> None:
    learner, batch = make(name), SupervisedBatches(blobs, size=12).batch(np.arange(2)).to(torch.float64)
    (loop, loop_gradient), (vmap, vmap_gradient) = (estimate(learner, batch, s) for s in ("loop", "vmap"))
    close(vmap.loss, loop.loss, "loss")
    for k in loop_gradient:
        close(vmap_gradient[k], loop_gradient[k], k)


def test_ragged_tasks_reach_a_learner_one_by_one(make: Make, blobs: ClassDataset) -> None:
    """And without their padding."""
    source = ClassTasks(blobs, (2, 3), (1, 3), query=2, ragged=True)
    learner = make("maml")
    batch = source.batch(np.arange(4)).to(torch.float64)
    outcome, _ = estimate(learner, batch, "vmap")
    for i in range(4):
        close(outcome.loss[i], learner(source.task(i).to(torch.float64)).loss.detach(), f"task {i}")


@pytest.mark.parametrize("features", [3, 49, 392])
@pytest.mark.parametrize("name", ["maml", "anil", "protonet", "r2d2"])
def test_a_body_returns_what_it_says(name: str, features: int, batch: Task) -> None:
    """Too few, maps that were not flattened, a tuple."""

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = features
            self.conv = nn.Conv2d(1, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            maps = self.conv(x)
            return maps.flatten(1) if features == 3 else maps if features == 49 else (maps, x)

    with pytest.raises(UserError, match=rf"the body Odd says it returns {features} features .*flatten"):
        estimate(build(name, Odd(), way=3, classes=9), batch, "loop")


@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, lambda net: torch.jit.trace(net, torch.rand(1, 1, 16, 16))]
)
@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
def test_what_has_no_other_weights_than_its_own_is_refused(wrap: Any, batch: Task) -> None:
    body = wrap(nn.Sequential(nn.Flatten(), nn.Linear(256, 4)))
    body.features = 4
    with pytest.raises(UserError, match=r"^a net of torch\.jit or nn\.DataParallel cannot be called"):
        ProtoNet(body).adapt(next(batch.unbatch()).support)


def test_a_body_says_how_many_features_it_has() -> None:
    assert width(mlp(3, (7,))) == 7
    body = nn.Linear(3, 4)
    body.features = np.int64(4)
    assert width(body) == 4
    with pytest.raises(UserError, match="Linear does not say how many features it returns"):
        width(nn.Linear(3, 4))


def test_a_body_says_how_it_normalises_in_known_words() -> None:
    body = mlp(3, (7,))
    body.norm = "runing"
    with pytest.raises(UserError, match="unknown norm 'runing': did you mean 'running'"):
        ProtoNet(body)


@pytest.mark.parametrize("rate", [-0.1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", [*DESCENDING, "pixel-nn"])
def test_a_rate_is_finite_and_not_below_zero(name: str, rate: float, make: Make) -> None:
    option = "blur" if name == "pixel-nn" else "inner_lr"
    with pytest.raises(UserError, match=f"^{option} must be at least 0 and finite, not {rate}"):
        make(name, **{option: rate})
    make(name, **{option: 0.0})


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("maml", {"steps": 1.5}, r"steps must be a whole number, not 1\.5"),
        ("maml", {"test_steps": "3"}, "test_steps must be a whole number, not '3'"),
        ("maml", {"inner_lr": "0.1"}, r"inner_lr must be a number, not '0\.1'"),
        ("reptile", {"inner_batch": 2.0}, r"inner_batch must be a whole number, not 2\.0"),
        ("scratch", {"steps": True}, "steps must be a whole number, not True"),
    ],
)
def test_options_of_another_kind_are_refused(
    name: str, options: dict[str, Any], said: str, make: Make
) -> None:
    with pytest.raises(UserError, match=said):
        make(name, **options)


def test_task_loss() -> None:
    logits, y = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0])
    close(task_loss(logits, y), -logits.log_softmax(1)[torch.arange(5), y].mean(), "cross-entropy")
    target = torch.randn(5, 3)
    close(task_loss(logits, target), ((logits - target) ** 2).mean(), "squared error")


def test_pixel_nn_has_nothing_to_train() -> None:
    assert list(PixelNN().parameters()) == []
    assert not any(isinstance(m, BatchNorm) for m in PixelNN().modules())
