"""Relation networks: Sung, Yang, Zhang, Xiang, Torr, Hospedales 2018, arXiv 1711.06025.

ω is an embedding f, whose outputs are feature maps, and a relation module g that compares two of them:

    rₙ = σ(g(cₙ, f(x))),   outer loss = 1/N Σₙ (rₙ − [y = n])²,

where cₙ is the mean of a class's support maps. (The paper adds them up; with their mean, a module trained on
one shot meets maps of the same scale at five.) A query's logits are g's outputs, before σ; by default their
cross-entropy is the outer loss, by which g learns several times faster than by the squared error of rₙ.

g normalises too. The published numbers normalise a query by the pairs of all queries in the call, which tells
of their classes: the mode `batch`. In the mode `support` g's statistics are those of the support set's own
pairs, each example with each class, and in the mode `running` averages over meta-training: of the pairs of
its queries, or after training in the mode `support` of those of its support sets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.errors import unknown
from quickstudy.inner.outcome import Outcome
from quickstudy.learners.calling import call, width
from quickstudy.learners.embedding import EmbeddingLearner
from quickstudy.learners.predictor import Predictor
from quickstudy.learners.protonet import prototypes
from quickstudy.nets.norm import Moments
from quickstudy.nets.relation import Relation
from quickstudy.tasks.task import Support, Task

Objective = Literal["mse", "cross-entropy"]


class RelationNet(EmbeddingLearner):
    """Relation networks: a learned comparison of feature maps; any way, any shot.

    Args:
        body: the embedding, with a `features` attribute; where these are maps, `map_shape` is `(C, H, W)`.
        objective: what it is trained by: the cross-entropy of the logits, or the squared error of the
            relation scores, as in the paper (mse).

    Example:
        >>> from quickstudy.nets import conv4
        >>> learner, x = RelationNet(conv4(8, halvings=2)), torch.rand(4, 1, 28, 28)
        >>> learner.adapt(x, [0, 0, 1, 1])(x).shape
        torch.Size([4, 2])
    """

    needs_every_class = True
    compares_maps = True
    outer = replace(EmbeddingLearner.outer, train_way=10)

    def __init__(self, body: nn.Module, *, objective: Objective = "cross-entropy") -> None:
        super().__init__(body)
        if objective not in get_args(Objective):
            raise unknown("objective", objective, get_args(Objective))
        self.objective: Objective = objective
        self.map_shape: tuple[int, int, int] = getattr(body, "map_shape", None) or (width(body), 1, 1)
        norm = getattr(body, "norm", None)
        self.relation = Relation(
            self.map_shape, norm if isinstance(norm, str) else "support" if self.norms() else "none"
        )

    def learn(self, support: Support) -> Predictor:
        z, embed, moments = self.embedded(support)
        answer = self.answers(z, support, moments)
        return Predictor(lambda x: answer(embed(x)), support.way, self.transductive, moments=moments)

    def answers(
        self, z: Tensor, support: Support, moments: Moments | None = None
    ) -> Callable[[Tensor], Tensor]:
        """As of every `EmbeddingLearner`; the moments of pairs are noted among those of the body."""
        moments = moments or self.support_moments()
        relation, weights, shape = self.relation, self.weights(self.relation), self.map_shape
        c = prototypes(z, support.y, support.ways).unflatten(1, shape)  # [N, C, H, W]
        if self.statistics == "support" and self.norms():
            call(relation, weights, z.unflatten(1, shape), moments, c)
        # Otherwise what is averaged is what queries are normalised by in meta-training: an example of one
        # shot is its class's mean, and no query makes such a pair.
        for_query = replace(self.query_moments(moments), seen=moments.seen, noting=self.training)
        return lambda q: call(relation, weights, q.unflatten(1, shape), for_query, c)  # [q, N]

    def forward(self, task: Task) -> Outcome:
        """Judged as any learner, trained by its `objective`."""
        outcome = self.judge(task)
        if self.objective == "cross-entropy":
            return outcome
        assert outcome.outputs is not None
        scores = outcome.outputs.sigmoid()  # [q, N]
        wanted = F.one_hot(task.query.y, task.support.ways).to(scores.dtype)
        return replace(outcome, loss=F.mse_loss(scores, wanted))
