"""Reptile: Nichol, Achiam, Schulman 2018, arXiv 1803.02999.

A task is learned by S steps of Adam (β₁ = 0) on mini-batches of all its examples, giving θ';
the meta-gradient is θ − θ', whose step of size ε moves θ to θ + ε (θ' − θ).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from quickstudy.errors import UserError
from quickstudy.inner.outcome import Outcome
from quickstudy.inner.rules import Rule, adam
from quickstudy.inner.solve import InnerProblem, solve
from quickstudy.learners.base import Outer, Weights, call, task_loss
from quickstudy.learners.descent import DescentLearner
from quickstudy.tasks.task import Task


class Reptile(DescentLearner):
    """Reptile: move the initialisation towards the weights that each task ends at.

    Args:
        body: any module with a `features` attribute.
        way: classes the head answers.
        inner_lr: the inner Adam's rate.
        steps: inner steps in meta-training.
        inner_batch: examples a mini-batch in meta-training.
        test_steps: inner steps, each on the whole support set, in use.
    """

    outer = Outer(optimizer="sgd", outer_lr=1.0, schedule="linear", meta_batch=5, strategy="vmap")
    first_order = True

    def __init__(
        self,
        body: nn.Module,
        *,
        way: int,
        inner_lr: float = 1e-3,
        steps: int = 5,
        inner_batch: int = 10,
        test_steps: int = 50,
    ) -> None:
        super().__init__(body, way=way, inner_lr=inner_lr, steps=test_steps)
        if steps < 1 or inner_batch < 1:
            raise UserError(f"steps and inner_batch must be at least 1, not {steps} and {inner_batch}")
        self.inner_batch, self.test_steps, self.train_steps = inner_batch, test_steps, steps

    def rule(self) -> Rule:
        return adam(self.inner_lr, b1=0.0)

    def prepare(self, batch: Task, generator: torch.Generator) -> Task:
        """Draw the mini-batches of the inner loop: row numbers `[T, S, B]` into support and query set."""
        t, k, q = len(batch.support.x), batch.support.x.shape[1], batch.query.x.shape[1]
        lots = torch.rand(t, self.train_steps, k + q, generator=generator)
        counts = torch.full((t,), k + q)  # examples of each task, which come first once padding is out
        for mask in (batch.support.mask, batch.query.mask):
            counts -= 0 if mask is None else (~mask.cpu()).sum(-1)
        lots[(torch.arange(k + q) >= counts[:, None, None]).expand_as(lots)] = 2.0
        rows = lots.argsort(-1)[..., : min(self.inner_batch, int(counts.min()))]
        return Task(batch.support, batch.query, batch.classes, {**batch.extra, "rows": rows})

    def forward(self, task: Task) -> Outcome:
        """An objective whose gradient is θ − θ': ½ ‖θ − θ'‖² with θ' held constant."""
        x = torch.cat([task.support.x, task.query.x])
        y = torch.cat([task.support.y, task.query.y])
        start = self.weights(self.net)
        still = {k: v for k, v in start.items() if k not in self._moving}

        def loss(params: Weights, step: int) -> Tensor:
            rows = task.extra["rows"][step]
            output = call(self.net, {**still, **params}, x[rows], moments := self.on_support())
            seen.append(moments)
            return task_loss(self.answered(output, task.support.way), y[rows])

        seen: list[Any] = []
        params = {k: start[k] for k in self._moving_in(start)}
        end = solve(InnerProblem(params, loss, self.rule(), self.train_steps), first_order=True)
        distance = torch.stack([(params[k] - end.params[k].detach()).square().sum() for k in params]).sum()
        metrics = {"loss": end.losses[-1]}
        return Outcome(0.5 * distance, metrics, self.stats(seen[-1]))

    def settings(self) -> list[dict[str, Any]]:
        return [{"steps": n, "inner_lr": lr * self.inner_lr} for lr in (1, 3) for n in (10, 50, 100)]
