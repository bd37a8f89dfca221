"""A hypernetwork that writes a task's classifier: HyperNetworks, Ha, Dai, Le 2016, arXiv 1609.09106.

A net g gives the weights of another. As in CNAPs (Requeima et al. 2019, arXiv 1906.07697) the other is a
task's linear classifier, class by class, from the mean cₙ of the class's support embeddings:

    (Δₙ, bₙ) = g(cₙ),   wₙ = cₙ + Δₙ,   logit n = wₙ · f(x) + bₙ.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from quickstudy.learners.amortised import at_least_one, perceptron
from quickstudy.learners.base import Outer, width
from quickstudy.learners.embedding import EmbeddingLearner
from quickstudy.learners.protonet import prototypes
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
    outer = Outer(meta_batch=4, outer_lr=1e-3, schedule="cosine", train_query=5)

    def __init__(self, body: nn.Module, *, hidden: int = 128) -> None:
        super().__init__(body)
        at_least_one(hidden=hidden)
        self.hidden = hidden
        self.generator = perceptron(width(body), hidden, width(body) + 1)

    def answers(self, z: Tensor, support: Support) -> Callable[[Tensor], Tensor]:
        c = prototypes(z, support.y, support.ways)  # [N, D]
        made = self.held(self.generator)(c)  # [N, D + 1]
        weight, bias = c + made[:, :-1], made[:, -1]
        return lambda q: q @ weight.T + bias
