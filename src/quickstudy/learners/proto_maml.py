"""Prototype-initialised MAML: Triantafillou et al. 2020, arXiv 1903.03096, section 3 (Proto-MAML).

A linear layer with weights 2cₙ and biases −‖cₙ‖² gives the logits of prototypical networks; the inner
loop starts from that head, made from the task's own prototypes, so any number of ways can be answered.
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from quickstudy.inner.rules import Params
from quickstudy.inner.solve import MethodName
from quickstudy.learners.descent import DescentLearner
from quickstudy.learners.protonet import prototypes
from quickstudy.tasks.task import Support


class ProtoMAML(DescentLearner):
    """Proto-MAML: MAML whose head starts from the task's prototypes; any way, any shot.

    Args:
        body: any module.
        inner_lr: the inner loop's rate.

    Example:
        >>> from quickstudy.nets import mlp
        >>> x, y = torch.rand(7, 2), torch.arange(7)
        >>> ProtoMAML(mlp(2), steps=1).adapt(x, y)(x).shape
        torch.Size([7, 7])
    """

    needs_every_class = True
    outer = replace(DescentLearner.outer, meta_batch=8)

    def __init__(
        self,
        body: nn.Module,
        *,
        inner_lr: float = 0.02,
        steps: int = 3,
        test_steps: int | None = None,
        gradient: MethodName | None = None,
    ) -> None:
        super().__init__(inner_lr=inner_lr, steps=steps, test_steps=test_steps, gradient=gradient)
        self.body = self.accept(body)

    @property
    def embedding(self) -> nn.Module:
        return self.body

    def inner_names(self) -> set[str]:
        body = {f"body.{k}" for k, p in self.body.named_parameters() if p.requires_grad}
        return body | {"head.weight", "head.bias"}

    def start(self, support: Support) -> Params:
        weights = {f"body.{k}": v for k, v in self.weights(self.body).items()}
        z = self.embed(weights, support.x, self.support_moments(kept=False, step=0))
        c = prototypes(z, support.y, support.ways)
        return {**weights, "head.weight": 2 * c, "head.bias": -c.square().sum(-1)}
