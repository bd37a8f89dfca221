"""Implicit MAML: Rajeswaran, Finn, Kakade, Levine 2019, iMAML, arXiv 1909.04630.

ω = θ, an initialisation. A task is learned by descending its support loss within reach of θ,

    θ* = argmin L(θ') + λ/2 ‖θ' − θ‖²,   outer loss = L'(θ*),

and the meta-gradient is that of the minimum, (I + ∇²L(θ*)/λ)⁻¹ ∇L'(θ*), by conjugate gradients: it does not
depend on the way there, of which nothing is kept. λ, the steps and their rate are those of the authors' code
for 5-way Omniglot. Their 16 steps stop short of a minimum; the code makes up for it by a λ of 24, not 2, in
the conjugate gradients. It also descends L alone, steps back towards θ once at the end, and not at all in
use; here, as in the paper, λ holds the weights in every step.
"""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from quickstudy.errors import UserError
from quickstudy.inner.implicit import conjugate_gradient, implicit
from quickstudy.inner.solve import Method
from quickstudy.learners.descent import HeadLearner, Which
from quickstudy.options import at_least_one, at_least_zero


class IMAML(HeadLearner):
    """iMAML: learn an initialisation near which tasks have their minima.

    Args:
        body: any module with a `features` attribute.
        way: classes the head answers, or output dimensions of a regression.
        inner_lr: the inner loop's rate.
        steps: inner steps in meta-training.
        strength: λ, how strongly the initialisation holds the weights, in use too.
        cg_steps: conjugate gradients a meta-gradient.
        damping: what is added to λ in these.

    Example:
        >>> from quickstudy.nets import mlp
        >>> learner, x, y = IMAML(mlp(2), way=2), torch.rand(4, 2), [0, 0, 1, 1]
        >>> len(learner.adapt(x, y).losses)
        16
    """

    for_functions: ClassVar = {"inner_lr": 0.01}

    def __init__(
        self,
        body: nn.Module,
        *,
        way: int,
        inner_lr: float = 0.1,
        steps: int = 16,
        test_steps: int | None = None,
        inner_params: Which = "all",
        strength: float = 2.0,
        cg_steps: int = 5,
        damping: float = 22.0,
    ) -> None:
        super().__init__(
            body, way=way, inner_params=inner_params, inner_lr=inner_lr, steps=steps, test_steps=test_steps
        )
        at_least_zero(strength=strength, damping=damping)
        at_least_one(cg_steps=cg_steps)
        if not strength:
            raise UserError("strength must be above 0: without it a task's minimum is nowhere near the start")
        self.strength, self.cg_steps, self.damping = strength, cg_steps, damping

    def way_back(self) -> Method:
        return implicit(self.strength, conjugate_gradient(self.cg_steps), self.damping)
