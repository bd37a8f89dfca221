"""Alpha MAML: Behl, Baydin, Torr 2019, arXiv 1905.07435.

MAML whose two rates, α inside and β outside, descend too while θ is learned. With dₜ the outer step,

    h = ∂L'(θ'_S)/∂α,    log α ← log α − κₜ sign h,
    log β ← log β + κ' cos(∇L'ₜ₊₁, dₜ).

The authors take steps along the hypergradients themselves. Here both rules are multiplicative, as one of
Baydin et al. 2018, arXiv 1703.04782, so that neither depends on the size of a rate or of a loss: a rate ten
times too low or too high is always as far away; α's goes by the sign alone, and takes shorter steps as
training goes on, so that it settles. β is the outer optimiser's, adam-hd.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from quickstudy.inner.rules import Params, Rule, sgd
from quickstudy.learners.maml import MAML
from quickstudy.options import at_least_zero


class AlphaMAML(MAML):
    """Alpha MAML: MAML that finds its rates, from whatever they begin at.

    Args:
        inner_lr: the rate the inner loop's begins at.
        hyper_lr: κ, how far its logarithm moves in the first meta-step; it falls to 0 over meta-training.

    Example:
        >>> from quickstudy.nets import mlp
        >>> learner = AlphaMAML(mlp(2), way=5, inner_lr=0.1)
        >>> learner.after_step({}, {"log_factor": torch.tensor(-2.0)}, 0.0)  # a higher rate was better
        >>> learner.alpha.detach()
        tensor(0.1649)
    """

    outer = replace(MAML.outer, optimizer="adam-hd", outer_lr=1e-3, schedule="constant")
    steers = ("log_factor",)

    def __init__(self, body: nn.Module, *, way: int, hyper_lr: float = 0.5, **maml: Any) -> None:
        super().__init__(body, way=way, **maml)
        at_least_zero(hyper_lr=hyper_lr)
        self.hyper_lr = hyper_lr
        self.log_factor = nn.Parameter(torch.zeros(()))  # log of how far α is from where it began

    @property
    def alpha(self) -> Tensor:
        """The inner rate of now."""
        return self.inner_lr * self.log_factor.exp()

    def candidates(self) -> list[dict[str, Any]]:
        """Numbers of steps; the rate is found already."""
        return self.numbers_of_steps(1, 3, 7, 10, 20)

    def rule(self, params: Params) -> Rule:
        return sgd(self.alpha)

    def after_step(self, stats: Mapping[str, Tensor], gradient: Params, progress: float) -> None:
        super().after_step(stats, gradient, progress)
        with torch.no_grad():
            self.log_factor.sub_(gradient["log_factor"].sign(), alpha=self.hyper_lr * (1 - progress))
