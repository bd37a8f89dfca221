"""Training from scratch on the support set: what a user would do without meta-learning."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from quickstudy.inner.rules import Params, Rule, adam
from quickstudy.learners.base import TrainsOn
from quickstudy.learners.descent import HeadLearner, zeros_head
from quickstudy.tasks.task import Support


class Scratch(HeadLearner):
    """A randomly initialised net trained with Adam on the support set alone.

    Args:
        body: any module with a `features` attribute, as initialised.
        way: classes the head answers.
        inner_lr: Adam's rate.
        steps: steps on the whole support set.
    """

    trains_on: ClassVar[TrainsOn] = "nothing"
    method = "first-order"

    def __init__(self, body: nn.Module, *, way: int, inner_lr: float = 0.01, steps: int = 30) -> None:
        super().__init__(body, way=way, inner_lr=inner_lr, steps=steps, test_steps=None)

    def rule(self, params: Params) -> Rule:
        return adam(self.inner_lr)

    def start(self, support: Support) -> Params:
        return zeros_head(super().start(support))

    def candidates(self) -> list[dict[str, Any]]:
        return [{"inner_lr": lr, "steps": n} for lr in (0.001, 0.003, 0.01) for n in (10, 30)]
