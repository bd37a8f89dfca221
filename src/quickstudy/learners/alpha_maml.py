"""Alpha MAML: Behl, Baydin, Torr 2019, arXiv 1905.07435.

MAML whose two rates, α inside and β outside, follow their own gradients while θ is learned:

    h = ∂L'(θ'_S)/∂ log α,    log α ← log α − κ h / max |h|,
    log β ← log β + κ' cos(∇L'ₜ, dₜ₋₁),

dₜ₋₁ being the outer step before. The authors add the hypergradients to α and β themselves, as Baydin et al.
2018, arXiv 1703.04782, whose multiplicative rule this is: what a step is worth then depends on neither the
rate nor the loss, and a rate ten times too low or high is as far away as any other. β is the business of the
outer optimiser, adam-hd.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from quickstudy.inner.rules import Params, Rule, sgd
from quickstudy.inner.solve import MethodName
from quickstudy.learners.base import Outer, at_least_zero
from quickstudy.learners.descent import Which
from quickstudy.learners.maml import MAML

FADING = 0.95
"""What is left after a meta-step of the largest |h| so far."""


class AlphaMAML(MAML):
    """Alpha MAML: MAML that finds its rates, from whatever they begin at.

    Args:
        inner_lr: the rate the inner loop's begins at.
        hyper_lr: κ, how far its logarithm moves in a meta-step.

    Example:
        >>> from quickstudy.nets import mlp
        >>> learner = AlphaMAML(mlp(2), way=5, inner_lr=0.1)
        >>> learner.after_step({}, {"lift": torch.tensor(-2.0)}, progress=0.0)  # a higher rate was better
        >>> learner.alpha.detach()
        tensor(0.1051)
    """

    outer = Outer(optimizer="adam-hd", meta_batch=16, outer_lr=1e-3, train_query=5)
    log_factor: Tensor
    largest: Tensor

    def __init__(
        self,
        body: nn.Module,
        *,
        way: int,
        inner_lr: float = 0.1,
        steps: int = 1,
        test_steps: int | None = None,
        inner_params: Which = "all",
        hyper_lr: float = 0.05,
        gradient: MethodName | None = None,
    ) -> None:
        super().__init__(
            body,
            way=way,
            inner_params=inner_params,
            inner_lr=inner_lr,
            steps=steps,
            test_steps=test_steps,
            gradient=gradient,
        )
        at_least_zero(hyper_lr=hyper_lr)
        self.hyper_lr = hyper_lr
        # Zero whenever a meta-step begins: it is there for its gradient, that of log α.
        self.lift = nn.Parameter(torch.zeros(()))
        self.register_buffer("log_factor", torch.zeros(()))
        self.register_buffer("largest", torch.zeros(()))

    @property
    def alpha(self) -> Tensor:
        """The inner rate of now."""
        return self.inner_lr * (self.log_factor + self.lift).exp()

    def rule(self, params: Params) -> Rule:
        return sgd(self.alpha)

    def after_step(self, stats: Mapping[str, Tensor], gradient: Params, progress: float) -> None:
        super().after_step(stats, gradient, progress)
        h = gradient["lift"]
        with torch.no_grad():
            self.lift.zero_()
            torch.maximum(h.abs(), FADING * self.largest, out=self.largest)
            self.log_factor -= self.hyper_lr * h / self.largest.clamp(min=torch.finfo(h.dtype).tiny)
