"""The meta-gradient of a batch of tasks: the gradient of their mean outer loss by ω.

How it goes back through an inner loop is the method with which the learner solves it (`solve`).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from quickstudy.errors import UserError
from quickstudy.inner.choice import Strategy, check_strategy, choose
from quickstudy.inner.compiled import meta_step
from quickstudy.inner.mapping import check_some, map_tasks, vectorisable, vectorising_explained
from quickstudy.inner.memory import portions
from quickstudy.inner.once import once_explained
from quickstudy.inner.outcome import Outcome
from quickstudy.inner.rules import Params
from quickstudy.inner.threads import each_task
from quickstudy.nets import native
from quickstudy.tasks.task import Task


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


@once_explained()
def estimate(learner: nn.Module, batch: Task, strategy: Strategy = "auto") -> tuple[Outcome, Params]:
    """The outcome `[T]` of each task, and the gradient of their mean loss with respect to ω.

    In a loop, each task's graph is freed before the next is built, so memory holds one task at a time; by
    threads, one task for each; mapped at once, as many as `portions` allows.

    Args:
        learner: a module written for one task: `learner(task) -> Outcome`.
        batch: T tasks.
        strategy: how the tasks share the machine, see `choice.py`; a name.

    Returns:
        (outcome, gradient by parameter name); zero for a parameter without influence.

    Raises:
        UserError: the learner has nothing to train, or uses what cannot be differentiated twice or by that
            strategy.

    >>> import numpy as np
    >>> from quickstudy.learners import MAML
    >>> from quickstudy.nets import mlp
    >>> from quickstudy.tasks import Sinusoids
    >>> outcome, gradient = estimate(MAML(mlp(1), way=1), Sinusoids(shot=5).batch(np.arange(4)))
    >>> outcome.loss.shape, len(gradient)
    (torch.Size([4]), 6)
    """
    check_strategy(strategy)
    check_some(batch)
    trained = {k: p for k, p in learner.named_parameters() if p.requires_grad}
    if not trained:
        raise UserError(f"{type(learner).__name__} has no parameter to train")
    names, params = list(trained), list(trained.values())
    if strategy == "auto":
        strategy = choose(lambda tasks, how: estimate(learner, tasks, how), learner, batch)

    def together(tasks: Task) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
        with (
            vectorising_explained(lambda: alone(learner, next(tasks.unbatch()))),
            native.all_processors(learner),
        ):
            flat = map_tasks(lambda learner, task: _flat(learner(task)), learner, tasks, "vmap")
            grads = torch.autograd.grad(flat["loss"].sum(), params, materialize_grads=True)
        return {k: v.detach() for k, v in flat.items()}, grads

    def alone(learner: nn.Module, task: Task) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
        params = [p for p in learner.parameters() if p.requires_grad]
        outcome = learner(task)
        grads = torch.autograd.grad(outcome.loss, params, materialize_grads=True)
        return {k: v.detach()[None] for k, v in _flat(outcome).items()}, grads

    found: Iterable[tuple[dict[str, Tensor], tuple[Tensor, ...]]]
    if vectorisable(batch, strategy):
        compiled = meta_step(learner, batch, _flat) if strategy == "compile" else None
        found = [compiled] if compiled else map(together, portions(learner, batch))
    else:
        found = each_task(alone, learner, batch, threads=None if strategy == "threads" else 1)
    parts, total = [], [torch.zeros_like(p) for p in params]
    for part, grads in found:
        parts.append(part)
        for sum_, g in zip(total, grads, strict=True):
            sum_.add_(g)
    outcome = _outcome({k: torch.cat([p[k] for p in parts]) for k in parts[0]})
    return outcome, {k: t.div_(len(outcome.loss)) for k, t in zip(names, total, strict=True)}
