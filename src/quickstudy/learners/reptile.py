"""Reptile: Nichol, Achiam, Schulman 2018, arXiv 1803.02999.

A task is learned by S steps of Adam on mini-batches of all its examples, giving θ';
the meta-gradient is θ − θ', whose step of size ε moves θ to θ + ε (θ' − θ). Adam has no momentum, β₁ = 0.

The authors' code (openai/supervised-reptile) differs in three things: its Adam keeps its second moments from
task to task, its mini-batches go through the shuffled examples before one comes again, and in use it descends
on mini-batches too. Here a task is learned from ω alone, and in use from the whole support set.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from quickstudy.errors import UserError
from quickstudy.inner.outcome import Outcome
from quickstudy.inner.problem import InnerProblem
from quickstudy.inner.rules import Params, Rule, adam
from quickstudy.inner.truncated import first_order
from quickstudy.learners.base import Outer
from quickstudy.learners.descent import HeadLearner, headed
from quickstudy.nets.norm import Moments
from quickstudy.options import at_least_one, at_least_zero
from quickstudy.tasks.task import Task


class Reptile(HeadLearner):
    """Reptile: move the initialisation towards the weights that each task ends at.

    Args:
        body: any module with a `features` attribute.
        way: classes the head answers.
        inner_lr: the inner Adam's rate.
        steps: inner steps in meta-training.
        inner_batch: examples a mini-batch in meta-training.
        momentum: β₁ of the inner Adam, in use too; the paper's is 0.
        test_steps: inner steps, each on the whole support set, in use.

    Example:
        >>> from quickstudy.nets import mlp
        >>> learner, x, y = Reptile(mlp(2), way=2, test_steps=3), torch.rand(4, 2), [0, 0, 1, 1]
        >>> len(learner.adapt(x, y).losses)
        3
    """

    outer = Outer(optimizer="sgd", outer_lr=1.0, schedule="linear", meta_batch=5)
    method = "first-order"

    def __init__(
        self,
        body: nn.Module,
        *,
        way: int,
        inner_lr: float = 1e-3,
        steps: int = 5,
        inner_batch: int = 10,
        momentum: float = 0.0,
        test_steps: int | None = 50,
    ) -> None:
        super().__init__(body, way=way, inner_lr=inner_lr, steps=steps, test_steps=test_steps)
        at_least_one(steps=steps, inner_batch=inner_batch)
        at_least_zero(momentum=momentum)
        if momentum >= 1:
            raise UserError(f"momentum must be below 1, not {momentum}")
        self.inner_batch, self.momentum = inner_batch, momentum

    def rule(self, params: Params) -> Rule:
        return adam(self.inner_lr, b1=self.momentum)

    def prepare(self, batch: Task, generator: torch.Generator) -> Task:
        """Draw the mini-batches of the inner loop: row numbers `[T, S, B]` into support and query set.

        Each task has a stream of its own, so that its rows do not depend on its neighbours; a task of n < B
        examples has n rows a mini-batch, then zeros.
        """
        x, masks = batch.support.x, (batch.support.mask, batch.query.mask)
        most = x.shape[1] + batch.query.x.shape[1]
        rows = torch.zeros(len(x), self.steps, min(self.inner_batch, most), dtype=torch.long)
        seeds = torch.randint(2**62, (len(x),), generator=generator).tolist()
        for t, seed in enumerate(seeds):
            stream = torch.Generator().manual_seed(seed)
            # A task's examples come first once its padding is out.
            n = most - sum(int((~mask[t]).sum()) for mask in masks if mask is not None)
            for mini in rows[t]:
                mini[:n] = torch.randperm(n, generator=stream)[: len(mini)]
        return replace(batch, extra={**batch.extra, "rows": rows.to(x.device)})

    def forward(self, task: Task) -> Outcome:
        """An objective whose gradient is θ − θ': ½ ‖θ − θ'‖² with θ' held constant."""
        x = torch.cat([task.support.x, task.query.x])
        y = torch.cat([task.support.y, task.query.y])
        rows = task.extra["rows"][:, : len(x)]
        start, inner = self.start(task.support), self.inner_names()
        params = {k: v for k, v in start.items() if k in inner}
        fixed = {k: v for k, v in start.items() if k not in inner}
        noted = [self.support_moments(kept=False, step=step) for step in range(len(rows))]

        def loss(params: Params, step: int) -> Tensor:
            weights = {**fixed, **params}
            z = self.embed(weights, x[rows[step]], noted[step])
            return self.support_loss(headed(weights, z), y[rows[step]])

        end = first_order(InnerProblem(params, loss, self.rule(params), self.steps))
        distance = torch.stack([(params[k] - end.params[k].detach()).square().sum() for k in params]).sum()
        seen = Moments(seen={layer: pairs for each in noted for layer, pairs in each.seen.items()})
        return Outcome(0.5 * distance, {"loss": end.losses[-1]}, self.stats(seen))

    def candidates(self) -> list[dict[str, Any]]:
        return [{"test_steps": n, "inner_lr": lr * self.inner_lr} for lr in (1, 3) for n in (10, 50, 100)]
