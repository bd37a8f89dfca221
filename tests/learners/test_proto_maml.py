from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from quickstudy.errors import UserError
from quickstudy.learners import ProtoMAML, ProtoNet
from quickstudy.tasks import Task

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("norm", ["support", "batch"])
def test_meta_gradient_by_finite_differences(
    steps: int, norm: str, smooth: Callable[[str], nn.Module], batch: Task, agrees: Callable[..., None]
) -> None:
    agrees(ProtoMAML(smooth(norm), inner_lr=0.1, steps=steps), batch)


def test_without_steps_it_is_a_prototypical_network(make: Callable[..., ProtoMAML], batch: Task) -> None:
    learner = make("proto-maml", steps=0)
    metric = ProtoNet(learner.body)
    for task in batch.unbatch():
        ours, theirs = learner.adapt(task.support), metric.adapt(task.support)
        x = task.query.x
        torch.testing.assert_close(ours.probabilities(x), theirs.probabilities(x), rtol=1e-9, atol=1e-12)


def test_the_inner_loop_by_hand(make: Callable[..., ProtoMAML], batch: Task) -> None:
    """Body and head descend together; the prototypes are not made again."""
    learner = make("proto-maml", "layer", steps=3, inner_lr=0.1)
    for task in batch.unbatch():
        body = copy.deepcopy(learner.body)
        z = body(task.support.x).detach()
        c = torch.stack([z[task.support.y == n].mean(0) for n in range(3)])
        weight, bias = nn.Parameter(2 * c), nn.Parameter(-(c**2).sum(1))
        optimizer = torch.optim.SGD([*body.parameters(), weight, bias], 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(F.linear(body(task.support.x), weight, bias), task.support.y).backward()
            optimizer.step()
        wanted = F.linear(body(task.query.x), weight, bias).detach()
        predictor = learner.adapt(task.support)
        torch.testing.assert_close(predictor(task.query.x), wanted, rtol=1e-10, atol=1e-10)
        assert len(predictor.losses) == 3


def test_any_way(make: Callable[..., ProtoMAML]) -> None:
    learner, x = make("proto-maml"), torch.rand(7, 1, 16, 16)
    assert learner.adapt(x, torch.arange(7))(x).shape == (7, 7)


def test_fewer_than_no_steps_is_an_error(make: Callable[..., ProtoMAML]) -> None:
    with pytest.raises(UserError, match="steps must be at least 0"):
        make("proto-maml", steps=-1)
