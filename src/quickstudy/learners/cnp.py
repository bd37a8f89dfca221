"""Conditional neural processes: Garnelo et al. 2018, arXiv 1807.01613.

Each example becomes a representation, the representations their mean, and the mean answers every query:

    rᵢ = h(xᵢ, yᵢ),   r = 1/n Σ rᵢ,   answer = g(x, r):

for values the mean and standard deviation of a normal distribution, trained by its log-likelihood. For
classes a mean is taken within each, and r is these means side by side (section 4.3). Here h and g see x
through the body and one place p(x), h adds to it what it makes of both, and g is also given the products of
p(x) with each mean: without these three it hardly learns to compare a query with examples. A class without
examples has the mean 0, and the standard deviation is at least 0.01.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from quickstudy.learners.amortised import AmortisedLearner
from quickstudy.learners.calling import width
from quickstudy.nets.mlp import perceptron
from quickstudy.options import at_least_one
from quickstudy.tasks.task import Support


class CNP(AmortisedLearner):
    """Conditional neural process: the mean of what examples say answers every query; any shot.

    Args:
        body: the embedding of inputs, pictures or points.
        way: classes it answers at most, or values of a regression.
        hidden: units of a layer of h and g, and numbers of a place and of a representation.

    Example:
        >>> from quickstudy.nets import mlp
        >>> predictor = CNP(mlp(1), way=1).adapt([[0.0], [1.0]], [0.5, 1.5])
        >>> mean, std = predictor.gaussian([[0.3], [0.4], [0.5]])
        >>> mean.shape, bool((std > 0).all())
        (torch.Size([3, 1]), True)
    """

    def __init__(self, body: nn.Module, *, way: int, hidden: int = 128) -> None:
        at_least_one(way=way, hidden=hidden)
        super().__init__(body, way)
        self.way, self.hidden = way, hidden
        self.place = nn.Sequential(nn.Linear(width(body), hidden), nn.LayerNorm(hidden))
        self.label = nn.Linear(way, hidden)
        self.encoder = perceptron(hidden, hidden, hidden)
        self.decoder = perceptron((1 + 2 * way) * hidden, hidden, 2 * way)

    def answers(self, z: Tensor, support: Support) -> Callable[[Tensor], Tensor]:
        place, decode = self.held(self.place), self.held(self.decoder)
        y = self.rows(support, z)  # [n, W]
        pair = place(z) + self.held(self.label)(y)  # [n, R]
        representations = pair + self.held(self.encoder)(pair)
        member = torch.ones_like(y) if support.way is None else y
        r = (member / member.sum(0).clamp(min=1)).T @ representations  # [W, R]

        def answer(q: Tensor) -> Tensor:
            p = place(q)  # [q, R]
            products = (p[:, None] * r).flatten(1)  # [q, W·R]
            same = r.flatten().expand(q.shape[0], -1)
            return self.answer_in(decode(torch.cat([p, products, same], -1)), support)

        return answer
