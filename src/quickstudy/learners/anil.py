"""Almost no inner loop: Raghu, Raghu, Bengio, Vinyals 2020, arXiv 1909.09157.

MAML whose inner loop moves the head only; the body's features are reused as they are.
"""

from __future__ import annotations

from torch import nn

from quickstudy.learners.base import Outer
from quickstudy.learners.maml import MAML


class ANIL(MAML):
    """ANIL: MAML that adapts the head only.

    Args:
        body: any module with a `features` attribute.
        way: classes the head answers.
        inner_lr: α, the inner loop's rate.
        steps: S, inner steps in meta-training and in use.
    """

    outer = Outer(meta_batch=16, outer_lr=1e-3, train_query=5, strategy="vmap")

    def __init__(self, body: nn.Module, *, way: int, inner_lr: float = 0.1, steps: int = 5) -> None:
        super().__init__(body, way=way, inner_lr=inner_lr, steps=steps, adapt="head")
