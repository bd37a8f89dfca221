"""What learners that compare have in common: a body embeds support set and queries, alone or all together."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

from torch import Tensor, nn

from quickstudy.inner.rules import Params
from quickstudy.learners.base import Learner, Outer
from quickstudy.learners.calling import call
from quickstudy.learners.predictor import Predictor
from quickstudy.nets.norm import Moments
from quickstudy.tasks.task import Support


class EmbeddingLearner(Learner):
    """Learns in the space of a learned embedding f; a subclass says how, in `answers`.

    Args:
        body: the embedding: inputs `[n, …]` → features `[n, D]`.
    """

    outer = Outer(meta_batch=1, outer_lr=3e-3, schedule="cosine", train_way=20, train_query=5)
    spread: ClassVar[bool] = False
    """Whether it answers a regression by mean and log standard deviation."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = self.accept(body)

    @abstractmethod
    def answers(self, z: Tensor, support: Support) -> Callable[[Tensor], Tensor]:
        """What this method makes of the support set's features `[n, D]`: query features `[q, D]` →
        logits `[q, N]`, or values. A learner that `uses_unlabelled` finds their features `[u, D]` in
        `support.unlabelled`."""

    def body_weights(self, support: Support) -> Params:
        """The weights the body embeds this task with, of its own or changed for the task."""
        return self.weights(self.body)

    def embedded(self, support: Support) -> tuple[Tensor, Callable[[Tensor], Tensor], Moments]:
        """The support set's features `[n, D]`, the embedding of its queries, and the moments of both."""
        body, moments = self.body, self.support_moments()
        weights = self.body_weights(support)
        z = call(body, weights, support.x, moments)
        for_query = self.query_moments(moments)
        return z, lambda x: call(body, weights, x, for_query), moments

    def learn(self, support: Support) -> Predictor:
        z, embed, moments = self.embedded(support)
        if self.uses_unlabelled and support.unlabelled is not None:
            support = replace(support, unlabelled=embed(support.unlabelled))
        answer = self.answers(z, support)
        spread = self.spread and support.way is None
        return Predictor(
            lambda x: answer(embed(x)), support.way, self.transductive, moments=moments, spread=spread
        )
