"""A hypernetwork that writes a task's classifier: HyperNetworks, Ha, Dai, Le 2016, arXiv 1609.09106.

A net g gives the weights of another. As in CNAPs (Requeima et al. 2019, arXiv 1906.07697) the other is a
task's linear classifier, class by class, from the mean cₙ of the class's support embeddings:

    (Δₙ, δₙ) = g(cₙ, c̄),   wₙ = 2cₙ + Δₙ,   bₙ = −‖cₙ‖² + δₙ,   logit n = wₙ · f(x) + bₙ.

The mean c̄ of all classes tells among which others a class has to be found (CNAPs write each class from its
own examples alone). g ends in zeros, so that it begins as the classifier that prototypes are (Snell et al.
2017, section 2.4).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from quickstudy.learners.calling import width
from quickstudy.learners.embedding import EmbeddingLearner
from quickstudy.learners.protonet import prototypes
from quickstudy.nets.mlp import perceptron
from quickstudy.options import at_least_one
from quickstudy.tasks.task import Support


class HyperNet(EmbeddingLearner):
    """Hypernetwork: a learned net writes each class's weights from its examples; any way, any shot.

    Args:
        body: the embedding.
        hidden: units of a layer of the net that writes.

    Example:
        >>> from quickstudy.nets import mlp
        >>> x, y = torch.rand(7, 2), torch.arange(7)
        >>> HyperNet(mlp(2)).adapt(x, y)(x).shape
        torch.Size([7, 7])
    """

    needs_every_class = True

    def __init__(self, body: nn.Module, *, hidden: int = 128) -> None:
        super().__init__(body)
        at_least_one(hidden=hidden)
        self.hidden = hidden
        self.generator = perceptron(2 * width(body), hidden, width(body) + 1, zeros=True)

    def answers(self, z: Tensor, support: Support) -> Callable[[Tensor], Tensor]:
        c = prototypes(z, support.y, support.ways)  # [N, D]
        among = c.mean(0).expand_as(c)
        made = self.held(self.generator)(torch.cat([c, among], -1))  # [N, D + 1]
        weight = 2 * c + made[:, :-1]
        bias = made[:, -1] - c.square().sum(-1)
        return lambda q: q @ weight.T + bias
