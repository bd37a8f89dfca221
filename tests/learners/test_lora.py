"""MAML over low-rank adapters: they alone move, or they alone are learned; by finite differences."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from quickstudy.inner import estimate
from quickstudy.learners import MAML
from quickstudy.nets import lora
from quickstudy.tasks import Task

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore:There is a performance drop"),  # attention in a map
]


class Rows(nn.Module):
    """A picture read row by row by a transformer layer."""

    features = 6

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(16, 6)
        self.layer = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True, activation="gelu")

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.into(x.flatten(1, 2))).mean(1)


def learner(freeze: bool, inner_params: str = "lora", gradient: str = "unrolled") -> MAML:
    net = MAML(
        lora(Rows(), rank=2, freeze=freeze),
        way=3,
        steps=4,
        inner_lr=0.1,
        inner_params=inner_params,
        gradient=gradient,
    )
    with torch.no_grad():
        for k, p in net.named_parameters():
            if "lora_b" in k:
                p.normal_(std=0.3)
    return net


@pytest.mark.parametrize("gradient", ["unrolled", "flat"])
@pytest.mark.parametrize("freeze", [True, False])
def test_meta_gradient(freeze: bool, gradient: str, batch: Task, agrees: Callable[..., None]) -> None:
    made = learner(freeze, gradient=gradient)
    trained = {k for k, p in made.named_parameters() if p.requires_grad}
    assert trained >= {k for k, _ in made.named_parameters() if "lora" in k or "head" in k}
    assert freeze == (len(trained) < len(list(made.parameters())))
    agrees(made, batch)


@pytest.mark.parametrize("strategy", ["loop", "vmap"])
def test_only_adapters_move(strategy: str, batch: Task) -> None:
    made, task = learner(freeze=False), next(batch.unbatch())
    before = made.weights(made.net)
    after, _, _ = made.descend(task.support)
    moved = {k for k in before if not torch.equal(before[k], after[k])}
    assert moved == {k for k in before if "lora" in k}
    _, ours = estimate(made, batch, strategy)
    _, theirs = estimate(made, batch, "loop")
    for k in theirs:
        torch.testing.assert_close(ours[k], theirs[k], rtol=1e-9, atol=1e-9)


def test_a_frozen_base_stays_out_of_both_loops(batch: Task) -> None:
    made = learner(freeze=True, inner_params="all")
    assert all("lora" in k or k.startswith("head.") for k in made.inner_names())
    _, gradient = estimate(made, batch)
    assert set(gradient) == {f"net.{k}" for k in made.inner_names()}
