"""Matching networks: Vinyals, Blundell, Lillicrap, Kavukcuoglu, Wierstra 2016, arXiv 1606.04080.

ω is an embedding of queries, f, and one of the support set, g. A query attends to the support examples, and
what it attends to votes for its class:

    P(y | x̂, S) = Σᵢ a(x̂, xᵢ) [yᵢ = y],   a(x̂, xᵢ) = softmaxᵢ c(f(x̂), g(xᵢ)),

c being the cosine. With full context embeddings f and g also see the whole support set
(`nets/full_context.py`). The paper's softmax has no temperature, and a cosine of at most 1 cannot make it
certain: by default cosines are divided by 0.1. Where classes have unequally many examples, which the paper
does not treat, a class's vote is the mean of its members', not their sum.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.learners.calling import width
from quickstudy.learners.embedding import EmbeddingLearner
from quickstudy.learners.similarity import Distance, similarity
from quickstudy.nets.full_context import QueryContext, SupportContext
from quickstudy.options import at_least_one
from quickstudy.tasks.task import Support


def votes(scores: Tensor, member: Tensor) -> Tensor:
    """log mean exp(sᵢ) over the members of each class: `[q, n]` and `[n, N]` of 0 and 1 → logits `[q, N]`.

    Where classes have equally many, their softmax is the attention that each class gets.

    >>> votes(torch.zeros(1, 3), torch.tensor([[1, 0], [1, 0], [0, 1]])).softmax(-1)
    tensor([[0.5000, 0.5000]])
    """
    outside = torch.where(member.T > 0, 0.0, -torch.inf).to(scores.dtype)  # [N, n]
    return (scores[:, None] + outside).logsumexp(-1) - member.sum(0).to(scores.dtype).log()


class MatchingNet(EmbeddingLearner):
    """Matching networks: attention over the support set votes for a query's class; any way, any shot.

    Args:
        body: the embedding; with full context, one with a `features` attribute.
        distance: between a query and the support examples: cosine as in the paper, or euclidean, its square.
        temperature: what similarities are divided by; by default 0.1, of squared distances 1.
        full_context: whether embeddings also depend on the whole support set, read by an LSTM forwards and
            backwards, so that its order matters.
        steps: K, how often a query looks at the support set where there is full context.

    Example:
        >>> from quickstudy.nets import mlp
        >>> predictor = MatchingNet(mlp(1, ())).adapt([[1.0], [-1.0]], [0, 1])
        >>> predictor([[2.0]]).argmax(-1)
        tensor([0])
    """

    needs_every_class = True

    def __init__(
        self,
        body: nn.Module,
        *,
        distance: Distance = "cosine",
        temperature: float | None = None,
        full_context: bool = False,
        steps: int = 3,
    ) -> None:
        super().__init__(body)
        at_least_one(steps=steps)
        similarity(distance, temperature)  # there is such a one
        self.distance: Distance = distance
        self.temperature, self.full_context, self.steps = temperature, full_context, steps
        if full_context:
            self.support_context = SupportContext(width(body))
            self.query_context = QueryContext(width(body), steps)

    @property
    def reads_in_order(self) -> bool:
        return self.full_context

    def answers(self, z: Tensor, support: Support) -> Callable[[Tensor], Tensor]:
        alike = similarity(self.distance, self.temperature)
        member = F.one_hot(support.y, support.ways)  # [n, N]
        if not self.full_context:
            return lambda q: votes(alike(q, z), member)
        in_context, g = self.held(self.query_context), self.held(self.support_context)(z)
        return lambda q: votes(alike(in_context(q, g), g), member)
