"""Meta-SGD: Li, Zhou, Chen, Li 2017, arXiv 1707.09835.

ω = (θ, α): an initialisation, and for each of its elements a rate, which may also turn the direction:

    θ' = θ − α ∘ ∇L(θ),   outer loss = L'(θ').

The authors draw each α from 0.005 to 0.1 and take a single step. Here all begin alike, by default at MAML's
rate, which is higher.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from quickstudy.inner.rules import Params, Rule, sgd
from quickstudy.learners.maml import MAML
from quickstudy.learners.rates import Rates


class MetaSGD(MAML):
    """Meta-SGD: MAML that learns a rate for each weight too.

    Args:
        inner_lr: the rate each α begins at.

    Example:
        >>> from quickstudy.nets import mlp
        >>> learner = MetaSGD(mlp(2, (3,)), way=5, inner_lr=0.1)
        >>> learner.rates.named()["head.bias"].detach()
        tensor([0.1000, 0.1000, 0.1000, 0.1000, 0.1000])
    """

    def __init__(self, body: nn.Module, *, way: int, **maml: Any) -> None:
        super().__init__(body, way=way, **maml)
        moved = {k: self.net.get_parameter(k) for k in sorted(self.inner_names())}
        self.rates = Rates({k: torch.full_like(p, self.inner_lr) for k, p in moved.items()})

    def rule(self, params: Params) -> Rule:
        return sgd(self.rates.cut(params))

    def candidates(self) -> list[dict[str, Any]]:
        """The rates are learned: only the number of steps is left to choose."""
        return self.numbers_of_steps(2, 3, 5, 10, 20)
