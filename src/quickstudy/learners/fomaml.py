"""First-order MAML: Finn, Abbeel, Levine 2017, arXiv 1703.03400, section 5.2.

As MAML, but each inner gradient counts as a constant of the meta-gradient, which is then ∇L'(θ'_S).
"""

from __future__ import annotations

from typing import Any

from torch import nn

from quickstudy.learners.maml import MAML


class FOMAML(MAML):
    """First-order MAML: the query gradient at the adapted weights is applied to the initialisation.

    A single large step, MAML's usual, teaches it little: it takes several smaller ones.

    Args:
        inner_lr: α, the inner loop's rate.
        steps: S, inner steps in meta-training.

    Example:
        >>> from quickstudy.nets import mlp
        >>> learner, x, y = FOMAML(mlp(2), way=2, steps=3), torch.rand(4, 2), [0, 0, 1, 1]
        >>> len(learner.adapt(x, y).losses)
        3
    """

    method = "first-order"

    def __init__(
        self, body: nn.Module, *, way: int, inner_lr: float = 0.1, steps: int = 5, **maml: Any
    ) -> None:
        super().__init__(body, way=way, inner_lr=inner_lr, steps=steps, **maml)
