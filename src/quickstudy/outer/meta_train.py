"""The outer loop: meta-gradient, meta-optimiser, validation, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from quickstudy.errors import NonFiniteError, RunError
from quickstudy.inner.mapping import Strategy
from quickstudy.inner.unrolled import estimate
from quickstudy.learners.base import Learner
from quickstudy.outer.measure import measure
from quickstudy.outer.optimizers import (
    MakeOptimizer,
    MakeSchedule,
    load_state,
    make_optimizer,
    make_schedule,
    state_tensors,
)
from quickstudy.outer.progress import NoProgress, Progress
from quickstudy.outer.run_folder import RunFolder
from quickstudy.tasks.task import TaskSource


CHECKPOINT, BEST = "checkpoint.safetensors", "best.safetensors"


@dataclass
class History:
    """How a run went: its records, and the best validation.

    Args:
        records: what metrics.jsonl holds.
        best: the best validation value (accuracy, or minus the loss for regression); None before the first.
        best_iteration: the meta-step it was reached at.
        iteration: meta-steps done.
        stopped_early: whether patience ran out.
        seconds: time spent, over all the times it was resumed.
    """

    records: list[dict[str, Any]] = field(default_factory=list)
    best: float | None = None
    best_iteration: int = 0
    iteration: int = 0
    stopped_early: bool = False
    seconds: float = 0.0


def meta_train(
    learner: Learner,
    tasks: TaskSource,
    *,
    validation: TaskSource | None = None,
    iterations: int = 3000,
    meta_batch: int | None = None,
    optimizer: str | MakeOptimizer | None = None,
    outer_lr: float | None = None,
    schedule: str | MakeSchedule | None = None,
    clip: float | None = None,
    strategy: Strategy | None = None,
    validate_every: int | None = None,
    validation_tasks: int = 200,
    patience: int | None = None,
    seed: int = 0,
    run: RunFolder | None = None,
    progress: Progress | None = None,
    log: Callable[[dict[str, Any]], None] = lambda record: None,
) -> History:
    """Meta-train a learner; afterwards it holds the weights that were best on meta-validation.

    Args:
        learner: changed in place.
        tasks: meta-training tasks; meta-step i uses those numbered i·meta_batch to (i+1)·meta_batch - 1.
        validation: meta-validation tasks 0 … validation_tasks - 1, measured every `validate_every` steps.
        iterations: meta-steps.
        meta_batch, optimizer, outer_lr, schedule, strategy: by default what the learner states in `outer`;
            optimizer and schedule may be functions that make any of torch's.
        clip: largest norm of the meta-gradient; None does not clip.
        patience: stop after this many validations without a better one.
        seed: of the chance a learner draws in `prepare`.
        run: where to keep checkpoints; if it holds one, training goes on from it, bit for bit.
        log: called with each record.

    Raises:
        NonFiniteError: the outer loss or the meta-gradient is not a number; it names the meta-step, and the
            state before it is kept.
    """
    outer = learner.outer
    size = meta_batch or outer.meta_batch
    every = validate_every or max(1, min(500, iterations // 20))
    params = {k: p for k, p in learner.named_parameters() if p.requires_grad}
    history = History()
    if not params or learner.trains_on == "nothing":
        return history
    opt = make_optimizer(
        optimizer or outer.optimizer, params.values(), outer.outer_lr if outer_lr is None else outer_lr
    )
    plan = make_schedule(schedule or outer.schedule, opt, iterations)
    window = Window()
    if run is not None and (run.path / CHECKPOINT).exists():
        restore(run, learner, opt, plan, history, window)
    show = progress or NoProgress()
    best = {k: v.clone() for k, v in learner.state_dict().items()}
    if run is not None and history.best is not None:
        best = run.load(BEST)[0]
    saved_at = clock = time.monotonic()
    worse = validations_since_best(history)

    def keep() -> None:
        nonlocal saved_at, clock
        history.seconds, clock = history.seconds + time.monotonic() - clock, time.monotonic()
        if run is not None:
            checkpoint(run, learner, opt, plan, history, window)
        saved_at = time.monotonic()

    learner.train()
    show.begin(iterations, history.iteration)
    try:
        while history.iteration < iterations and not history.stopped_early:
            i = history.iteration
            generator = torch.Generator().manual_seed((seed * 1_000_003 + i) % 2**63)
            batch = learner.prepare(tasks.batch(np.arange(i * size, (i + 1) * size)), generator)
            outcome, gradient = estimate(learner, batch, strategy or outer.strategy)
            loss, norm = float(outcome.loss.mean()), global_norm(gradient)
            if not (math.isfinite(loss) and math.isfinite(norm)):
                keep()
                what = "outer loss" if not math.isfinite(loss) else "meta-gradient"
                raise NonFiniteError(
                    f"the {what} is not a finite number at meta-step {i + 1}; the state after meta-step {i} "
                    "is kept. Try a lower outer or inner rate, or --clip 1"
                )
            scale = min(1.0, clip / (norm + 1e-12)) if clip else 1.0
            for name, p in params.items():
                p.grad = gradient[name] * scale if scale != 1.0 else gradient[name]
            opt.step()
            plan.step()
            learner.after_step({k: v.mean(0) for k, v in outcome.stats.items()}, gradient, i / iterations)
            history.iteration = i + 1
            window.add({k: float(v.mean()) for k, v in outcome.metrics.items()})
            show.step(history.iteration, window.latest, size)
            if history.iteration % every == 0 or history.iteration == iterations:
                record = {"iteration": history.iteration, **window.take("train_")}
                if validation is not None:
                    record |= validate(learner, validation, validation_tasks)
                    value = record.get("val_accuracy", -record["val_loss"])
                    worse += 1
                    if history.best is None or value > history.best:
                        history.best, history.best_iteration, worse = value, history.iteration, 0
                        best = {k: v.clone() for k, v in learner.state_dict().items()}
                        if run is not None:
                            run.save(BEST, best, {"iteration": history.iteration})
                    history.stopped_early = patience is not None and worse >= patience
                history.records.append(record)
                if run is not None:
                    run.log(record)
                log(record)
                show.validated(record)
                keep()
            elif time.monotonic() - saved_at > 20:
                keep()
    except KeyboardInterrupt:
        keep()
        raise
    finally:
        show.end()
    if validation is not None and history.best is not None:
        learner.load_state_dict(best)
    elif run is not None:
        run.save(BEST, learner.state_dict(), {"iteration": history.iteration})
    learner.eval()
    return history


@dataclass
class Window:
    """Training averages since the last record; part of a checkpoint, so that a resumed record is the same."""

    sums: dict[str, float] = field(default_factory=dict)
    count: int = 0
    latest: dict[str, float] = field(default_factory=dict)

    def add(self, values: dict[str, float]) -> None:
        self.latest = values
        self.count += 1
        for k, v in values.items():
            self.sums[k] = self.sums.get(k, 0.0) + v

    def take(self, prefix: str) -> dict[str, float]:
        means = {prefix + k: v / max(1, self.count) for k, v in self.sums.items()}
        self.sums, self.count = {}, 0
        return means


def global_norm(gradient: dict[str, Tensor]) -> float:
    """The Euclidean norm of all gradients together."""
    return float(torch.stack([g.square().sum() for g in gradient.values()]).sum().sqrt())


def validate(learner: Learner, source: TaskSource, n_tasks: int) -> dict[str, float]:
    """Mean and interval of every metric on meta-validation."""
    measured = measure(learner, source, n_tasks)
    result = {f"val_{k}": measured.mean(k) for k in measured.values}
    if "accuracy" in measured.values:
        result["val_accuracy_ci95"] = measured.ci95("accuracy")
    return result


def validations_since_best(history: History) -> int:
    """How many validations there were after the best one."""
    return sum(r["iteration"] > history.best_iteration for r in history.records)


def checkpoint(
    run: RunFolder, learner: Learner, optimizer: Optimizer, plan: LRScheduler, history: History, window: Window
) -> None:
    """Everything training needs to go on, in one file that is replaced in one rename."""
    tensors, rest = state_tensors(optimizer)
    run.save(
        CHECKPOINT,
        {f"learner.{k}": v for k, v in learner.state_dict().items()}
        | {f"optimizer.{k}": v for k, v in tensors.items()},
        {
            "iteration": history.iteration,
            "best": history.best,
            "best_iteration": history.best_iteration,
            "stopped_early": history.stopped_early,
            "seconds": history.seconds,
            "optimizer": rest,
            "schedule": {k: v for k, v in plan.state_dict().items() if k != "lr_lambdas"},
            "window": {"sums": window.sums, "count": window.count},
        },
    )


def restore(
    run: RunFolder, learner: Learner, optimizer: Optimizer, plan: LRScheduler, history: History, window: Window
) -> None:
    """Go back to the last checkpoint of a run.

    Raises:
        RunError: it is damaged, or of another learner.
    """
    tensors, meta = run.load(CHECKPOINT)
    try:
        learner.load_state_dict(_part(tensors, "learner."))
        load_state(optimizer, _part(tensors, "optimizer."), meta["optimizer"])
        plan.load_state_dict({**plan.state_dict(), **meta["schedule"]})
    except (KeyError, RuntimeError, ValueError) as error:
        raise RunError(f"{run.path / CHECKPOINT} does not fit this learner: {error}") from error
    run.rewind(meta["iteration"])
    history.records = list(run.records())
    history.iteration, history.best = meta["iteration"], meta["best"]
    history.best_iteration, history.stopped_early = meta["best_iteration"], meta["stopped_early"]
    history.seconds = meta.get("seconds", 0.0)
    window.sums, window.count = meta["window"]["sums"], meta["window"]["count"]


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
