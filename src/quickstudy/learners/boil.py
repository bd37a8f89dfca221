"""Body only in the inner loop: Oh, Yoo, Kim, Yun 2021, BOIL, arXiv 2008.08882.

MAML whose inner loop moves the body only: the head stays, and features must come to it. What ANIL is not.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from quickstudy.learners.descent import Which
from quickstudy.learners.maml import MAML


class BOIL(MAML):
    """BOIL: MAML that adapts the body only; its arguments are MAML's.

    Example:
        >>> from quickstudy.nets import mlp
        >>> BOIL(mlp(2), way=5).inner_params
        'body'
    """

    def __init__(self, body: nn.Module, *, way: int, inner_params: Which = "body", **maml: Any) -> None:
        super().__init__(body, way=way, inner_params=inner_params, **maml)
