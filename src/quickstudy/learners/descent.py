"""What learners that descend share: a net of body and linear head, whose weights a task's loss moves."""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from quickstudy.errors import TaskError, UserError
from quickstudy.inner.outcome import Outcome
from quickstudy.inner.rules import Rule, sgd
from quickstudy.inner.solve import InnerProblem, Solution, solve
from quickstudy.learners.base import Learner, Predictor, Weights, call, task_loss, width
from quickstudy.nets.norm import BatchNorm, Moments
from quickstudy.tasks.task import Support, Task

PARTS = {"all": "", "filters": "", "head": r"^head\.", "body": r"^body\."}
NORMS = (BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.modules.instancenorm._InstanceNorm)


class DescentLearner(Learner):
    """Descends the support loss from learned weights. Subclasses say what the meta-gradient sees.

    Args:
        body: any module with a `features` attribute: input → `[n, features]`.
        way: classes the head answers, or output dimensions of a regression.
        inner_lr: the inner loop's rate.
        steps: inner steps S.
        adapt: what the inner loop moves: "all", "head", "body", "filters" (all but normalisation scales and
            shifts), or a regular expression over parameter names.
    """

    first_order = False

    def __init__(self, body: nn.Module, *, way: int, inner_lr: float, steps: int, adapt: str = "all") -> None:
        super().__init__()
        if steps < 0:
            raise UserError(f"steps must be at least 0, not {steps}")
        head = nn.Linear(width(body), way)
        self.net = nn.Sequential(OrderedDict(body=self.use(body), head=head))
        self.way, self.inner_lr, self.steps, self.moves = way, inner_lr, steps, adapt
        self._moving = moving(self.net, adapt)

    def rule(self) -> Rule:
        """The inner update rule."""
        return sgd(self.inner_lr)

    def start(self, support: Support) -> Weights:
        """The weights the inner loop starts from."""
        return self.weights(self.net)

    def descend(self, support: Support) -> tuple[Weights, Solution]:
        """The weights after the inner loop, and its course."""
        start = self.start(support)
        still = {k: v for k, v in start.items() if k not in self._moving}

        def loss(params: Weights, step: int) -> Tensor:
            output = call(self.net, {**still, **params}, support.x, self.on_support())
            return task_loss(self.answered(output, support.way), support.y)

        params = {k: start[k] for k in self._moving_in(start)}
        solution = solve(InnerProblem(params, loss, self.rule(), self.steps), first_order=self.first_order)
        return {**still, **solution.params}, solution

    def _moving_in(self, start: Weights) -> list[str]:
        return [k for k in start if k in self._moving]

    def support_moments(self, weights: Weights, support: Support) -> Moments:
        """The statistics of the support set under the adapted weights, where anything needs them."""
        moments = self.on_support()
        if self.modes and (self.statistics == "support" or self.training):
            call(self.net, weights, support.x, moments)
        return moments

    def learn(self, support: Support) -> Predictor:
        return self.learned(support)[0]

    def learned(self, support: Support) -> tuple[Predictor, Moments]:
        weights, solution = self.descend(support)
        moments = self.support_moments(weights, support)
        on_query = self.on_query(moments)

        def predict(x: Tensor) -> Tensor:
            return self.answered(call(self.net, weights, x, on_query), support.way)

        return Predictor(predict, support.way, self.transductive, solution.losses), moments

    def forward(self, task: Task) -> Outcome:
        predictor, moments = self.learned(task.support)
        outcome = self.judged(predictor(task.query.x), task)
        return Outcome(outcome.loss, outcome.metrics, self.stats(moments))

    def answered(self, output: Tensor, way: int | None) -> Tensor:
        """The first `way` outputs of the head; a fixed head cannot answer more ways than it has."""
        if way is None:
            return output
        if way > self.way:
            raise TaskError(
                f"this learner's head answers {self.way} ways, not {way}; "
                "the learner proto-maml answers any number"
            )
        return output[..., :way]

    def settings(self) -> list[dict[str, Any]]:
        """As trained and twice as long, each at half, the same and double the rate."""
        s, lr = self.steps, self.inner_lr
        return [{"steps": n, "inner_lr": r} for n in (s, max(1, 2 * s)) for r in (lr, lr / 2, lr * 2)]


def moving(net: nn.Module, adapt: str) -> set[str]:
    """The names of the parameters that the inner loop moves; see `DescentLearner`."""
    try:
        pattern = re.compile(PARTS.get(adapt, adapt))
    except re.error as error:
        raise UserError(f"adapt={adapt!r} is no regular expression: {error}") from error
    found = {k for k, _ in net.named_parameters() if pattern.search(k)}
    if adapt == "filters":
        norms = ((name, module) for name, module in net.named_modules() if isinstance(module, NORMS))
        found -= {f"{name}.{k}" for name, module in norms for k, _ in module.named_parameters()}
    if not found:
        raise UserError(f"no parameter is named by adapt={adapt!r}")
    return found


def zeros_head(weights: Weights) -> Weights:
    """The same weights with a head that answers nothing yet."""
    return {k: torch.zeros_like(v) if k.startswith("head.") else v for k, v in weights.items()}
