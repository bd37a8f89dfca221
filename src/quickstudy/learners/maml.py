"""Model-agnostic meta-learning: Finn, Abbeel, Levine 2017, arXiv 1703.03400.

ω = θ, an initialisation. For a task with support loss L and query loss L':

    θ'₀ = θ,   θ'ₛ₊₁ = θ'ₛ − α ∇L(θ'ₛ),   outer loss = L'(θ'_S),

and the meta-gradient goes through all S steps (second order).
"""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from quickstudy.inner.solve import MethodName
from quickstudy.learners.descent import HeadLearner, Which


class MAML(HeadLearner):
    """MAML (Finn et al. 2017): learn an initialisation from which few gradient steps solve a task.

    Args:
        body: any module with a `features` attribute.
        way: classes the head answers, or output dimensions of a regression.
        inner_lr: α, the inner loop's rate.
        steps: S, inner steps in meta-training.
        test_steps: inner steps in use; by default as many as in meta-training.
        inner_params: what the inner loop moves: all, head, body, filters (all but normalisation scales and
            shifts), or a regular expression, searched for anywhere in names such as body.0.conv.weight and
            head.bias; from Python also a function of a name; never parameters that need no gradient.
        gradient: the way back through the inner loop: unrolled, the fastest; flat, the same meta-gradient
            in memory that does not grow with the steps; first-order, without second derivatives. By default
            unrolled, but first-order for first-order MAML.

    Example:
        >>> from quickstudy.nets import conv4
        >>> MAML(conv4(8), way=5, inner_lr=0.4, steps=1).way
        5
    """

    for_functions: ClassVar = {"inner_lr": 0.01}

    def __init__(
        self,
        body: nn.Module,
        *,
        way: int,
        inner_lr: float = 0.4,
        steps: int = 1,
        test_steps: int | None = None,
        inner_params: Which = "all",
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
