"""Almost no inner loop: Raghu, Raghu, Bengio, Vinyals 2020, arXiv 1909.09157.

MAML whose inner loop moves the head only; the body's features are reused as they are.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from quickstudy.learners.descent import Which
from quickstudy.learners.maml import MAML


class ANIL(MAML):
    """ANIL: MAML that adapts the head only; its arguments are MAML's.

    Example:
        >>> from quickstudy.nets import mlp
        >>> ANIL(mlp(2), way=5).inner_params
        'head'
    """

    def __init__(
        self,
        body: nn.Module,
        *,
        way: int,
        inner_lr: float = 0.1,
        steps: int = 5,
        inner_params: Which = "head",
        **maml: Any,
    ) -> None:
        super().__init__(body, way=way, inner_lr=inner_lr, steps=steps, inner_params=inner_params, **maml)
