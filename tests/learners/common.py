"""What the tests of every learner share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from quickstudy.learners import CONTROLS, LEARNERS, Learner
from quickstudy.nets import BatchNorm

Make = Callable[..., Learner]
ALL = [*LEARNERS, *CONTROLS]
DESCENDING = [
    *("maml", "fomaml", "anil", "boil", "reptile", "meta-sgd", "maml++", "alpha-maml", "imaml", "mmaml"),
    *("proto-maml", "scratch", "pretrain-finetune"),
]
SEQUENTIAL = ["mann", "lstm", "snail"]
"""Those that read the support set in its order."""


def few_steps(name: str, make: Make, norm: str = "support", **options: Any) -> Learner:
    """A learner that adapts in few steps, so that many can be tried."""
    if name in DESCENDING:
        options = {"steps": 3, **options}
    if name == "reptile":
        options = {"test_steps": 3, "inner_batch": 6, **options}
    return make(name, norm, **options)


def scattered(net: nn.Module) -> nn.Module:
    """The net, every scale, shift and average of its batch normalisation another one."""
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, BatchNorm):
                layer.weight.normal_()
                layer.bias.normal_()
                layer.mean.normal_()
                layer.var.uniform_(0.5, 2)
    return net


def close(a: Tensor, b: Tensor, what: str, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, msg=lambda m: f"{what}: {m}")
