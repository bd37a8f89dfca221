"""Prototype-initialised MAML: Triantafillou et al. 2020, arXiv 1903.03096, section 3 (Proto-MAML).

A linear layer with weights 2cₙ and biases −‖cₙ‖² gives the logits of prototypical networks; the inner
loop starts from that head, made from the task's own prototypes, so any number of ways can be answered.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.errors import UserError
from quickstudy.inner.outcome import Outcome
from quickstudy.inner.rules import sgd
from quickstudy.inner.solve import InnerProblem, solve
from quickstudy.learners.base import Learner, Outer, Predictor, Weights, call, task_loss
from quickstudy.learners.protonet import prototypes
from quickstudy.nets.norm import Moments
from quickstudy.tasks.task import Support, Task


class ProtoMAML(Learner):
    """Proto-MAML: MAML whose head starts from the task's prototypes; any way, any shot.

    Args:
        body: any module.
        inner_lr: the inner loop's rate.
        steps: inner steps in meta-training and in use.
    """

    outer = Outer(meta_batch=8, outer_lr=1e-3, train_query=5, strategy="vmap")

    def __init__(self, body: nn.Module, *, inner_lr: float = 0.02, steps: int = 3) -> None:
        super().__init__()
        if steps < 0:
            raise UserError(f"steps must be at least 0, not {steps}")
        self.body = self.use(body)
        self.inner_lr, self.steps = inner_lr, steps

    def learn(self, support: Support) -> Predictor:
        return self.learned(support)[0]

    def learned(self, support: Support) -> tuple[Predictor, Moments]:
        weights, way = self.weights(self.body), support.ways
        names = [k for k, _ in self.body.named_parameters()]
        still = {k: v for k, v in weights.items() if k not in names}
        c = prototypes(call(self.body, weights, support.x, self.on_support()), support.y, way)
        start = {k: weights[k] for k in names}
        start |= {"head.weight": 2 * c, "head.bias": -c.square().sum(-1)}

        def logits(params: Weights, x: Tensor, moments: Moments) -> Tensor:
            body = {**still, **{k: params[k] for k in names}}
            return F.linear(call(self.body, body, x, moments), params["head.weight"], params["head.bias"])

        def loss(params: Weights, step: int) -> Tensor:
            return task_loss(logits(params, support.x, self.on_support()), support.y)

        solution = solve(InnerProblem(start, loss, sgd(self.inner_lr), self.steps))
        moments = self.on_support()
        if self.modes and (self.statistics == "support" or self.training):
            logits(solution.params, support.x, moments)
        on_query = self.on_query(moments)

        def predict(x: Tensor) -> Tensor:
            return logits(solution.params, x, on_query)

        return Predictor(predict, way, self.transductive, solution.losses), moments

    def forward(self, task: Task) -> Outcome:
        predictor, moments = self.learned(task.support)
        outcome = self.judged(predictor(task.query.x), task)
        return Outcome(outcome.loss, outcome.metrics, self.stats(moments))

    def settings(self) -> list[dict[str, Any]]:
        return [
            {"steps": steps, "inner_lr": lr * self.inner_lr}
            for lr in (0.5, 1.0, 2.0)
            for steps in (self.steps, 3 * self.steps)
        ]
