"""Prototypical networks: Snell, Swersky, Zemel 2017, arXiv 1703.05175.

ω is an embedding f. A class's prototype is the mean of its support embeddings, cₙ = mean f(xₙ), and
a query's logits are minus its squared Euclidean distances, −‖f(x) − cₙ‖².
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from quickstudy.learners.base import Outer
from quickstudy.learners.embedding import EmbeddingLearner
from quickstudy.tasks.task import Support


def prototypes(z: Tensor, y: Tensor, way: int) -> Tensor:
    """The mean embedding of each class: `[n, D]` with labels `[n]` → `[way, D]`."""
    member = F.one_hot(y, way).to(z.dtype)  # [n, N]
    return member.T @ z / member.sum(0)[:, None]


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """‖aᵢ − bⱼ‖²: `[q, D]` and `[N, D]` → `[q, N]`.

    >>> squared_distances(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0], [1.0, 0.0]]))
    tensor([[25.,  1.]])
    """
    centre = b.mean(0).detach()  # which no distance depends on; far from 0 the squares would cancel badly
    a, b = a - centre, b - centre
    return a.square().sum(-1)[:, None] - 2 * a @ b.T + b.square().sum(-1)


class ProtoNet(EmbeddingLearner):
    """Prototypical networks: nearest class mean in a learned embedding; any way, any shot.

    Args:
        body: the embedding.

    Example:
        >>> from quickstudy.nets import conv4
        >>> learner = ProtoNet(conv4(16))
    """

    needs_every_class = True
    outer = Outer(meta_batch=1, outer_lr=1e-3, schedule="halving", train_way=20, train_query=5)

    def answers(self, z: Tensor, support: Support) -> Callable[[Tensor], Tensor]:
        c = prototypes(z, support.y, support.ways)  # [N, D]
        return lambda q: -squared_distances(q, c)
