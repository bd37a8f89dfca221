"""R2-D2, a ridge regression as the head: Bertinetto, Henriques, Torr, Vedaldi 2019, arXiv 1805.08136.

ω is an embedding f, a penalty λ and a scale α. With the support set's features X `[n, D]`, a
column of ones among them, and its labels Y `[n, N]` in rows of 0 and 1, both over √n, the head is

    W = argmin ‖XW − Y‖² + λ‖W‖² = (XᵀX + λI)⁻¹XᵀY = Xᵀ(XXᵀ + λI)⁻¹Y,

the last by Woodbury's identity a system of n equations instead of D, and a query's logits are α f(x)W. The
meta-gradient goes through the solution. The paper also shifts all logits alike, which changes no
probability. That the squares count as their mean, so that λ means the same at any way and shot, is as in the
authors' code, where features are wider and λ begins at 50. Where classes have unequally many examples,
which the paper does not treat, the mean is that of the classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.errors import UserError
from quickstudy.learners.embedding import EmbeddingLearner
from quickstudy.learners.targets import one_hot, shares
from quickstudy.options import at_least_zero
from quickstudy.tasks.task import Support


def ridge_regression(x: Tensor, y: Tensor, penalty: Tensor) -> Tensor:
    """argmin ‖xW − y‖² + λ‖W‖²: `[n, D]`, `[n, N]` and λ → W `[D, N]`, by the smaller of the two systems.

    >>> ridge_regression(torch.eye(2), torch.tensor([[2.0], [4.0]]), torch.tensor(1.0))
    tensor([[1.],
            [2.]])
    """
    n, d = x.shape
    ridge = penalty * torch.eye(min(n, d), dtype=x.dtype, device=x.device)
    if n < d:
        return x.T @ torch.linalg.solve(x @ x.T + ridge, y)
    return torch.linalg.solve(x.T @ x + ridge, x.T @ y)


class R2D2(EmbeddingLearner):
    """R2-D2: a ridge regression of the labels on a learned embedding, in closed form; any way, any shot.

    Real targets are regressed as they are, without the scale.

    Args:
        body: the embedding.
        penalty: λ at the beginning; it is learned.

    Example:
        >>> from quickstudy.nets import mlp
        >>> R2D2(mlp(1, ()), penalty=1e-6).adapt([[0.0], [1.0]], [[1.0], [3.0]])([[2.0]]).round()
        tensor([[5.]])
    """

    def __init__(self, body: nn.Module, *, penalty: float = 1.0) -> None:
        super().__init__(body)
        at_least_zero(penalty=penalty)
        if penalty == 0:
            raise UserError("penalty must be above 0: without it the system may have no solution")
        self.penalty = penalty
        self.log_penalty = nn.Parameter(torch.tensor(math.log(penalty)))  # λ stays above 0
        self.scale = nn.Parameter(torch.tensor(10.0))  # answers near 0 and 1 are no logits yet

    def answers(self, z: Tensor, support: Support) -> Callable[[Tensor], Tensor]:
        x, y, each = with_ones(z), one_hot(support, z.dtype), shares(support.y, z.dtype)
        root = len(z) ** -0.5 if each is None else each.sqrt()[:, None]  # [n, 1]
        w = ridge_regression(root * x, root * y, self.log_penalty.exp())  # [D + 1, N]
        if support.way is not None:
            w = self.scale * w
        return lambda q: with_ones(q) @ w


def with_ones(z: Tensor) -> Tensor:
    """Features `[n, D]` and a column of ones `[n, D + 1]`, whose weight is the bias."""
    return F.pad(z, (0, 1), value=1.0)
