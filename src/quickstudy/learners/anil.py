"""Almost no inner loop: Raghu, Raghu, Bengio, Vinyals 2020, arXiv 1909.09157.

MAML whose inner loop moves the head only; the body's features are reused as they are.
"""

from __future__ import annotations

from quickstudy.learners.maml import MAML
from quickstudy.learners.preset import preset


@preset(inner_params="head", inner_lr=0.1, steps=5)
class ANIL(MAML):
    """ANIL: MAML that adapts the head only; its arguments are MAML's.

    Example:
        >>> from quickstudy.nets import mlp
        >>> ANIL(mlp(2), way=5).inner_params
        'head'
    """
