"""Nets called with other weights: layers in several places and tied tensors among them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.errors import UserError
from quickstudy.inner import estimate
from quickstudy.inner.functional import with_weights
from quickstudy.learners import MAML, ProtoNet
from quickstudy.tasks import Query, Support, Task

pytestmark = pytest.mark.usefixtures("float64")


class Shared(nn.Module):
    """One layer under two names, and a tensor that two layers share."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 4)
        self.again = self.second
        self.tied = nn.Linear(3, 4, bias=False)
        self.tied.weight = self.first.weight
        self.register_buffer("scale", torch.tensor(0.5))
        self.features = 4

    def forward(self, x: Tensor) -> Tensor:
        return self.again(torch.tanh(self.second(torch.tanh(self.first(x))))) + self.scale * self.tied(x)


def by_hand(w: dict[str, Tensor], x: Tensor) -> Tensor:
    """The same function."""

    def second(h: Tensor) -> Tensor:
        return F.linear(h, w["second.weight"], w["second.bias"])

    h = second(torch.tanh(second(torch.tanh(F.linear(x, w["first.weight"], w["first.bias"])))))
    return h + w["scale"] * F.linear(x, w["first.weight"])


def test_it_is_the_net_with_other_weights_and_leaves_it_as_it_was() -> None:
    net, x = Shared(), torch.randn(5, 3)
    before = dict(net.named_parameters())
    weights = {k: torch.randn_like(p) for k, p in before.items()} | {"scale": torch.tensor(2.0)}
    for _ in range(2):
        torch.testing.assert_close(with_weights(net, weights, [x]), by_hand(weights, x))
    assert all(p is before[k] for k, p in net.named_parameters())
    assert net.again is net.second
    assert net.tied.weight is net.first.weight
    assert net.scale == 0.5


def test_names_that_the_net_does_not_have_are_refused() -> None:
    net = Shared()
    for name in ("body.first.weight", "again.weight", "first"):
        with pytest.raises(UserError, match=rf"^Shared has no parameter or buffer {name}$"):
            with_weights(net, {name: torch.zeros(4, 3)}, [torch.ones(1, 3)])


def tasks() -> Task:
    y = torch.arange(2).repeat(3).expand(4, 6).contiguous()
    return Task(Support(torch.randn(4, 6, 3), y, 2), Query(torch.randn(4, 6, 3), y))


@pytest.mark.parametrize("strategy", ["loop", "threads", "vmap"])
@pytest.mark.parametrize("gradient", ["unrolled", "flat"])
def test_the_meta_gradient_of_a_shared_layer(strategy: Any, gradient: Any) -> None:
    learner, batch = MAML(Shared(), way=2, inner_lr=0.3, steps=3, gradient=gradient).train(), tasks()
    start = dict(learner.net.named_parameters())
    scale = {"scale": learner.net.body.scale}

    def loss(w: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        body = {k.removeprefix("body."): v for k, v in w.items()} | scale
        return F.cross_entropy(F.linear(by_hand(body, x), w["head.weight"], w["head.bias"]), y)

    total = torch.zeros(())
    for task in batch.unbatch():
        w = dict(start)
        for _ in range(3):
            grads = torch.autograd.grad(
                loss(w, task.support.x, task.support.y), [*w.values()], create_graph=True
            )
            w = {k: v - 0.3 * g for (k, v), g in zip(w.items(), grads, strict=True)}
        total = total + loss(w, task.query.x, task.query.y) / 4
    wanted = torch.autograd.grad(total, [*start.values()])
    for _ in range(2):
        found = estimate(learner, batch, strategy)[1]
        for name, g in zip(start, wanted, strict=True):
            torch.testing.assert_close(found[f"net.{name}"], g, rtol=1e-9, atol=1e-9)


def test_adapting_leaves_a_learner_with_a_shared_layer_as_it_was() -> None:
    task = next(tasks().unbatch())
    for learner in (MAML(Shared(), way=2, steps=2, inner_lr=0.5), ProtoNet(Shared())):
        before = {k: v.clone() for k, v in learner.state_dict().items()}
        answers = [learner.adapt(task.support)(task.query.x) for _ in range(2)]
        assert torch.equal(*answers)
        assert all(torch.equal(v, before[k]) for k, v in learner.state_dict().items())
        assert all(
            isinstance(p, nn.Parameter)
            for m in learner.modules()
            for p in m._parameters.values()
            if p is not None
        )
