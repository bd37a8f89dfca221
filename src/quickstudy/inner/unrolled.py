"""The meta-gradient by reverse mode through the unrolled inner loop (Finn et al. 2017, 1703.03400)."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from quickstudy.inner.mapping import Strategy, each_task, map_tasks
from quickstudy.inner.outcome import Outcome
from quickstudy.tasks.task import Task

Gradient = dict[str, Tensor]


class TaskLoss(Protocol):
    """What is differentiated: a module whose call on one task gives an `Outcome`."""

    def __call__(self, task: Task) -> Outcome: ...
    def named_parameters(self) -> object: ...


def _flat(outcome: Outcome) -> dict[str, Tensor]:
    return {
        "loss": outcome.loss,
        **{f"metric.{k}": v.detach() for k, v in outcome.metrics.items()},
        **{f"stat.{k}": v.detach() for k, v in outcome.stats.items()},
    }


def _outcome(flat: dict[str, Tensor]) -> Outcome:
    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in flat.items() if k.startswith(prefix)}

    return Outcome(flat["loss"].detach(), part("metric."), part("stat."))


def estimate(
    learner: nn.Module, batch: Task, strategy: Strategy = "loop", workers: int = 2
) -> tuple[Outcome, Gradient]:
    """The outcome `[T]` of each task, and the gradient of their mean loss with respect to ω.

    In a loop, each task's graph is freed before the next is built, so memory holds one task at a time.

    Args:
        learner: a module written for one task: `learner(task) -> Outcome`.
        batch: T tasks.

    Returns:
        (outcome, gradient by parameter name); zero for a parameter without influence.
    """
    names, params = zip(*((k, p) for k, p in learner.named_parameters() if p.requires_grad), strict=True)
    if strategy == "vmap" and not batch.padded:
        flat = map_tasks(lambda task: _flat(learner(task)), batch, "vmap")
        grads = torch.autograd.grad(flat["loss"].mean(), params, materialize_grads=True)
        return _outcome(flat), dict(zip(names, grads, strict=True))

    def one(task: Task) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
        outcome = learner(task)
        grads = torch.autograd.grad(outcome.loss, params, materialize_grads=True)
        return {k: v.detach() for k, v in _flat(outcome).items()}, grads

    results = each_task(one, batch, strategy, workers)
    flat = {k: torch.stack([r[0][k] for r in results]) for k in results[0][0]}
    mean = [torch.stack(g).mean(0) for g in zip(*(r[1] for r in results), strict=True)]
    return _outcome(flat), dict(zip(names, mean, strict=True))
