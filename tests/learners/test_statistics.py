"""What each normalisation mode computes, by value: a small net and its inner steps written out by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.inner.rules import Params
from quickstudy.learners import MAML, Learner, ProtoNet
from quickstudy.nets import BatchNorm
from quickstudy.nets.norm import make_norm
from quickstudy.tasks import Support

pytestmark = pytest.mark.usefixtures("float64")

WIDTH, GROUPS = 16, {"group": 8, "layer": 1}
RATE, STEPS = 0.3, 2
Pair = tuple[Tensor, Tensor]


class Body(nn.Sequential):
    """A linear layer and its normalisation, nothing of which is as at the beginning."""

    def __init__(self, norm: str) -> None:
        super().__init__(nn.Linear(3, WIDTH), make_norm(norm, WIDTH), nn.Tanh())
        self.features, self.norm = WIDTH, norm
        with torch.no_grad():
            for p in self.parameters():
                p.normal_()
            if isinstance(self[1], BatchNorm):
                self[1].mean.normal_()
                self[1].var.uniform_(0.5, 2)


class ByHand:
    """The same net by its formula, in one mode, in meta-training or in use."""

    def __init__(self, learner: Learner, norm: str, training: bool) -> None:
        self.norm, self.running = norm, None
        given = {k.removeprefix("net.").removeprefix("body."): v for k, v in learner.state_dict().items()}
        if "1.mean" in given:
            averages = given.pop("1.mean"), given.pop("1.var")
            # In meta-training the averages are still being made: a batch's own count.
            self.running = averages if norm == "running" and not training else None
        self.weights: Params = {k: v.detach().clone().requires_grad_() for k, v in given.items()}

    def features(self, x: Tensor, moments: Pair | None) -> tuple[Tensor, Pair]:
        """Features, and the moments they were normalised by; by default the batch's own."""
        w, groups = self.weights, GROUPS.get(self.norm)
        z = x @ w["0.weight"].T + w["0.bias"]
        if groups:
            parts = z.view(len(x), groups, -1)
            away = parts - parts.mean(-1, keepdim=True)
            z = (away / (away.square().mean(-1, keepdim=True) + 1e-5).sqrt()).view(len(x), WIDTH)
            moments = (torch.zeros(()), torch.ones(()))
        else:
            moments = moments or (z.mean(0), (z - z.mean(0)).square().mean(0))
            z = (z - moments[0]) / (moments[1] + 1e-5).sqrt()
        return torch.tanh(z * w["1.weight"] + w["1.bias"]), moments

    def answers(self, support: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the support set and of queries."""
        at_support, moments = self.features(support, self.running)
        return at_support, self.features(query, moments if self.norm == "support" else self.running)[0]

    def head(self, z: Tensor) -> Tensor:
        return z @ self.weights["head.weight"].T + self.weights["head.bias"]

    def step(self, x: Tensor, y: Tensor) -> None:
        loss = F.cross_entropy(self.head(self.features(x, self.running)[0]), y)
        grads = torch.autograd.grad(loss, list(self.weights.values()))
        moved = zip(self.weights.items(), grads, strict=True)
        self.weights = {k: (v - RATE * g).detach().requires_grad_() for (k, v), g in moved}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", ["batch", "support", "running", "group", "layer"])
@pytest.mark.parametrize("descends", [True, False])
def test_by_value(descends: bool, norm: str, training: bool) -> None:
    body = Body(norm)
    learner = MAML(body, way=2, inner_lr=RATE, steps=STEPS) if descends else ProtoNet(body)
    learner.train(training)
    x, y, query = torch.randn(4, 3), torch.tensor([0, 0, 1, 1]), torch.randn(5, 3)
    with torch.set_grad_enabled(training):
        logits = learner.learn(Support(x, y, 2))(query)
    by_hand = ByHand(learner, norm, training)
    if descends:
        for _ in range(STEPS):
            by_hand.step(x, y)
        wanted = by_hand.head(by_hand.answers(x, query)[1])
    else:
        at_support, at_query = by_hand.answers(x, query)
        means = torch.stack([at_support[:2].mean(0), at_support[2:].mean(0)])
        wanted = -(at_query[:, None] - means).square().sum(-1)
    torch.testing.assert_close(logits, wanted, rtol=1e-10, atol=1e-10)
