"""MAML++: Antoniou, Edwards, Storkey 2019, arXiv 1810.09502.

MAML with five changes: the outer rate falls as a cosine, and each of these four can be switched off.

    multi-step loss          Σₛ wₛ L'(θ'ₛ), annealed from wₛ = 1/S to the last step alone,
    derivative annealing     first order in the first third of meta-training, then second order,
    learned rates            θ'ₛ₊₁ = θ'ₛ − αₛ ∇L(θ'ₛ), α for each layer and step,
    per-step normalisation   statistics, scales and shifts for each step, which the inner loop leaves alone.

As in the authors' code the weights of all steps but the last fall to no less than 0.03/S, over the first
tenth of meta-training, from when on the last step alone counts. That code always normalises queries by
themselves (its published numbers are transductive: `--norm batch`), has one rate for each tensor and not each
layer, and on Omniglot is of second order throughout (`--no-derivative-annealing`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from quickstudy.inner.outcome import Outcome
from quickstudy.inner.rules import Params, Rule, sgd
from quickstudy.inner.schedules import by_step
from quickstudy.inner.solve import Method, MethodName
from quickstudy.inner.unrolled import trajectory
from quickstudy.learners.descent import Descent, Which
from quickstudy.learners.maml import MAML
from quickstudy.learners.rates import Rates
from quickstudy.nets.norm import BatchNorm
from quickstudy.nets.per_step import PerStep, per_step
from quickstudy.tasks.task import Task

ANNEALED, LEAST, FIRST_ORDER = 0.1, 0.03, 1 / 3
"""The share of meta-training with a multi-step loss, the least S wₛ in it, and the share of first order."""


class MAMLPlusPlus(MAML):
    """MAML++: how to train MAML; without its four parts it is MAML.

    Args:
        body: any module with a `features` attribute; its `BatchNorm` becomes one for each step, in place.
        way: classes the head answers, or output dimensions of a regression.
        inner_lr: the inner loop's rate, at which learned rates begin.
        steps: S, inner steps in meta-training.
        multi_step_loss: whether each step's query loss counts, less and less. As long as it does the inner
            loop is unrolled, or of first order, whatever other way back `gradient` names.
        derivative_annealing: whether meta-training begins without second derivatives.
        learned_rates: whether each layer has a learned rate for each step.
        per_step_norm: whether batch normalisation has statistics, scales and shifts for each step.

    Example:
        >>> from quickstudy.nets import mlp
        >>> learner = MAMLPlusPlus(mlp(2, (3,), norm="support"), way=5, inner_lr=0.5, steps=2)
        >>> {name: rate.tolist() for name, rate in learner.rates.named().items()}
        {'body.1': [0.5, 0.5], 'head': [0.5, 0.5]}
    """

    outer = replace(MAML.outer, meta_batch=8)
    progress: Tensor
    first_order: bool
    every_step: bool

    def __init__(
        self,
        body: nn.Module,
        *,
        way: int,
        inner_lr: float = 0.1,
        steps: int = 5,
        inner_params: Which = "filters",
        multi_step_loss: bool = True,
        derivative_annealing: bool = True,
        learned_rates: bool = True,
        per_step_norm: bool = True,
        **maml: Any,
    ) -> None:
        kinds = {type(module) for module in body.modules()}
        if per_step_norm and BatchNorm in kinds and PerStep not in kinds:
            body = per_step(body, steps)
        super().__init__(body, way=way, inner_params=inner_params, inner_lr=inner_lr, steps=steps, **maml)
        self.multi_step_loss, self.derivative_annealing = multi_step_loss, derivative_annealing
        self.learned_rates, self.per_step_norm = learned_rates, per_step_norm
        layers = sorted({name.rpartition(".")[0] for name in self.inner_names()} if learned_rates else ())
        self.rates = Rates({layer: torch.full((max(steps, 1),), inner_lr) for layer in layers})
        self.register_buffer("progress", torch.zeros(()))
        self.register_load_state_dict_post_hook(MAMLPlusPlus.anneal)
        self.anneal()

    def rule(self, params: Params) -> Rule:
        return sgd(by_step(self.rates.named()) if self.learned_rates else self.inner_lr)

    def way_back(self) -> MethodName | Method:
        return "first-order" if self.first_order else super().way_back()

    def forward(self, task: Task) -> Outcome:
        """The weighted sum of the query losses after each step, while it is annealed; then the last one's."""
        if not (self.training and self.every_step):
            return super().forward(task)
        loop, outcomes = Descent(self, task.support), []
        exact = 0 if self.way_back() == "first-order" else None
        for step, (_, params) in enumerate(trajectory(loop.problem(), exact=exact)):
            moments = loop.moments(params, step if step + 1 < self.steps else None)
            predictor = self.predictor(task.support, loop.weights(params), moments)
            outcomes.append(self.judged(predictor, task.query))
        losses = torch.stack([outcome.loss for outcome in outcomes])  # [S]
        return replace(outcomes[-1], loss=self.importance() @ losses)

    def importance(self) -> Tensor:
        """The weight w of each step's query loss `[S]`, which sum to 1.

        >>> from quickstudy.nets import mlp
        >>> MAMLPlusPlus(mlp(2), way=2, steps=4).importance()
        tensor([0.2500, 0.2500, 0.2500, 0.2500])
        """
        before = (1 - self.progress / ANNEALED).clamp(min=LEAST).expand(self.steps - 1) / self.steps
        return torch.cat([before, 1 - before.sum(0, keepdim=True)])

    def after_step(self, stats: Mapping[str, Tensor], gradient: Params, progress: float) -> None:
        super().after_step(stats, gradient, progress)
        self.progress.fill_(progress)
        self.anneal()

    def anneal(self, *_: object) -> None:
        """Say by attributes what is computed at this stage; a map over tasks can ask no tensor."""
        done = float(self.progress)
        self.first_order = self.derivative_annealing and done < FIRST_ORDER
        self.every_step = self.multi_step_loss and self.steps > 1 and done < ANNEALED

    def candidates(self) -> list[dict[str, Any]]:
        """Where the rates are learned only the number of steps is left to choose."""
        return self.numbers_of_steps(1, 3, 7, 10, 20) if self.learned_rates else super().candidates()
