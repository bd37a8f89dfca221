"""What learners that compare have in common: a body embeds support set and queries, alone or all together."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor, nn

from quickstudy.learners.base import Learner, call
from quickstudy.learners.predictor import Predictor
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
        logits `[q, N]`, or values. A learner that `uses_unlabelled` finds their features `[u, D]` in
        `support.unlabelled`."""

    def learn(self, support: Support) -> Predictor:
        body, moments = self.body, self.support_moments()
        weights = self.weights(body)
        z, for_query = call(body, weights, support.x, moments), self.query_moments(moments)
        if self.uses_unlabelled and support.unlabelled is not None:
            support = replace(support, unlabelled=call(body, weights, support.unlabelled, for_query))
        answer = self.answers(z, support)

        def predict(x: Tensor) -> Tensor:
            return answer(call(body, weights, x, for_query))

        return Predictor(predict, support.way, self.transductive, moments=moments)
