"""What learners that compare have in common: a body embeds support set and queries, alone or all together."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

from torch import Tensor, nn

from quickstudy.learners.base import Learner, call
from quickstudy.learners.predictor import Predictor
from quickstudy.nets.norm import Moments
from quickstudy.tasks.task import Support


class EmbeddingLearner(Learner):
    """Learns in the space of a learned embedding f; a subclass says how, in `answers`.

    Args:
        body: the embedding: inputs `[n, …]` → features `[n, D]`.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = self.accept(body)

    @abstractmethod
    def answers(self, z: Tensor, support: Support) -> Callable[[Tensor], Tensor]:
        """What this method makes of the support set's features `[n, D]`: query features `[q, D]` →
        logits `[q, N]`, or values."""

    def embedded(self, support: Support) -> tuple[Tensor, Callable[[Tensor], Tensor], Moments]:
        """The support set's features `[n, D]`, what embeds queries beside them, and the moments of both."""
        body, moments = self.body, self.support_moments()
        weights = self.weights(body)
        z = call(body, weights, support.x, moments)
        for_query = self.query_moments(moments)
        return z, lambda x: call(body, weights, x, for_query), moments

    def learn(self, support: Support) -> Predictor:
        z, embed, moments = self.embedded(support)
        answer = self.answers(z, support)
        return Predictor(lambda x: answer(embed(x)), support.way, self.transductive, moments=moments)
