"""Prototypical networks: Snell, Swersky, Zemel 2017, arXiv 1703.05175.

ω is an embedding f. A class's prototype is the mean of its support embeddings, cₙ = mean f(xₙ), and
a query's logits are minus its squared Euclidean distances, −‖f(x) − cₙ‖².
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.learners.embedding import EmbeddingLearner
from quickstudy.learners.similarity import Distance, similarity
from quickstudy.tasks.task import Support


def prototypes(z: Tensor, y: Tensor, way: int) -> Tensor:
    """The mean embedding of each class: `[n, D]` with labels `[n]` → `[way, D]`.

    >>> prototypes(torch.tensor([[0.0], [2.0], [5.0]]), torch.tensor([0, 0, 1]), 2)
    tensor([[1.],
            [5.]])
    """
    member = F.one_hot(y, way).to(z.dtype)  # [n, N]
    return member.T @ z / member.sum(0)[:, None]


class ProtoNet(EmbeddingLearner):
    """Prototypical networks: nearest class mean in a learned embedding; any way, any shot.

    Args:
        body: the embedding.
        distance: between a query and the prototypes: euclidean, its square as in the paper, or cosine.
        temperature: what similarities are divided by; by default 1, of cosines 0.1.

    Example:
        >>> from quickstudy.nets import conv4
        >>> learner = ProtoNet(conv4(16))
    """

    needs_every_class = True

    def __init__(
        self, body: nn.Module, *, distance: Distance = "euclidean", temperature: float | None = None
    ) -> None:
        super().__init__(body)
        similarity(distance, temperature)  # there is such a one
        self.distance: Distance = distance
        self.temperature = temperature

    def answers(self, z: Tensor, support: Support) -> Callable[[Tensor], Tensor]:
        alike, c = similarity(self.distance, self.temperature), prototypes(z, support.y, support.ways)
        return lambda q: alike(q, c)
