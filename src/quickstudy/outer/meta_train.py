"""The outer loop: meta-gradient, meta-optimiser, validation, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quickstudy.errors import NonFiniteError, TaskError, UserError
from quickstudy.inner.mapping import Strategy
from quickstudy.inner.unrolled import estimate
from quickstudy.learners.base import Learner
from quickstudy.outer.checkpoint import BEST, CHECKPOINT, History, State
from quickstudy.outer.device import suited
from quickstudy.outer.measure import measure
from quickstudy.outer.optimizers import MakeOptimizer, MakeSchedule, make_optimizer, make_schedule
from quickstudy.outer.progress import Progress, display
from quickstudy.outer.run_folder import RunFolder
from quickstudy.outer.seeds import seeded
from quickstudy.tasks.task import Task, TaskSource

CHECKPOINT_SECONDS = 20.0
"""A checkpoint is written after every validation, and after this long without one."""


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
    run: str | Path | RunFolder | None = None,
    progress: Progress | bool | None = None,
    log: Callable[[dict[str, Any]], None] = lambda record: None,
) -> History:
    """Meta-train a learner; afterwards it holds the weights that were best on meta-validation.

    Args:
        learner: changed in place.
        tasks: meta-training tasks; meta-step i uses those numbered i·meta_batch to (i+1)·meta_batch - 1.
        validation: meta-validation tasks 0 … validation_tasks - 1, measured every `validate_every` steps.
        iterations: meta-steps.
        meta_batch, optimizer, outer_lr, schedule, strategy: by default what the learner states in `outer`;
            optimizer and schedule may be functions that make one of torch's, but not LBFGS, which needs the
            loss several times a step, nor ReduceLROnPlateau, which is no function of the step.
        clip: largest norm of the meta-gradient; None does not clip.
        patience: stop after this many validations without a better one.
        seed: of the chance a learner draws in `prepare`, and its net in dropout.
        run: where to keep checkpoints, a folder; if it holds one, training goes on from it, bit for bit.
        progress: show a bar on standard error, or a display of your own.
        log: called with each record.

    Raises:
        UserError: a number that is too small.
        TaskError: the learner is trained on ordinary batches and these are tasks, or the other way round.
        NonFiniteError: the outer loss or the meta-gradient is not a number; it names the meta-step, and the
            state before it is kept.
    """
    at_least(0, iterations=iterations, outer_lr=outer_lr)
    at_least(1, meta_batch=meta_batch, validate_every=validate_every)
    at_least(1, validation_tasks=validation_tasks, patience=patience)
    if clip is not None and not clip > 0:
        raise UserError(f"clip must be above 0, not {clip}")
    run, show = folder(run), display(progress)
    outer = learner.outer
    params = {k: p for k, p in learner.named_parameters() if p.requires_grad}
    if not params or learner.trains_on == "nothing":
        return History()
    size, how = meta_batch or outer.meta_batch, strategy or outer.strategy
    every = validate_every or max(1, min(500, iterations // 20))
    opt = make_optimizer(
        optimizer or outer.optimizer, params.values(), outer.outer_lr if outer_lr is None else outer_lr
    )
    state = State(learner, opt, make_schedule(schedule or outer.schedule, opt, iterations))
    best = go_on(state, run)
    history, window = state.history, state.window
    saved_at = clock = time.monotonic()
    worse = validations_since_best(history)

    def keep() -> None:
        nonlocal saved_at, clock
        history.seconds, clock = history.seconds + time.monotonic() - clock, time.monotonic()
        if run is not None:
            state.save(run)
        saved_at = time.monotonic()

    learner.train()
    whole = True  # whether the state is that after a whole number of meta-steps, validation included
    show.begin(iterations, history.iteration)
    try:
        while history.iteration < iterations and not history.stopped_early:
            whole, i = True, history.iteration
            generator = torch.Generator().manual_seed((seed * 1_000_003 + i) % 2**63)
            batch = tasks.batch(np.arange(i * size, (i + 1) * size))
            check_source(learner, batch)
            batch = learner.prepare(suited(batch, learner), generator)
            with seeded(int(torch.randint(2**62, (), generator=generator))):  # dropout in a net
                outcome, gradient = estimate(learner, batch, how)
            loss, norm = float(outcome.loss.mean()), global_norm(gradient)
            if not (math.isfinite(loss) and math.isfinite(norm)):
                keep()
                what = "outer loss" if not math.isfinite(loss) else "meta-gradient"
                raise NonFiniteError(
                    f"the {what} is not a finite number at meta-step {i + 1}; the state after meta-step {i} "
                    "is kept. Try a lower outer or inner rate, or --clip 1"
                )
            scale = min(1.0, clip / (norm + 1e-12)) if clip else 1.0
            whole = False
            for name, p in params.items():
                p.grad = gradient[name] * scale if scale != 1.0 else gradient[name]
            opt.step()
            state.schedule.step()
            learner.after_step({k: v.mean(0) for k, v in outcome.stats.items()}, gradient, i / iterations)
            history.iteration = i + 1
            window.add({k: float(v.mean()) for k, v in outcome.metrics.items()})
            show.step(history.iteration, window.latest, size)
            if history.iteration % every == 0 or history.iteration == iterations:
                record = {"iteration": history.iteration, **window.take("train_")}
                if validation is not None:
                    record |= validate(learner, validation, validation_tasks, how)
                    value = record.get("val_accuracy", -record["val_loss"])
                    worse += 1
                    if math.isfinite(value) and (history.best is None or value > history.best):
                        history.best, history.best_iteration, worse = value, history.iteration, 0
                        best = copied(learner)
                    history.stopped_early = patience is not None and worse >= patience
                history.records.append(record)
                if run is not None:
                    run.log(record)
                keep()
                # After the checkpoint: the best weights on disk are never newer than it, and where they are
                # older, it holds the newer ones itself.
                if run is not None and worse == 0 and history.best is not None:
                    run.save(BEST, best, {"iteration": history.iteration})
                log(record)
                show.validated(record)
            elif time.monotonic() - saved_at >= CHECKPOINT_SECONDS:
                keep()
    except KeyboardInterrupt:
        if whole:  # else the last checkpoint stands
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


def at_least(least: int, **numbers: float | None) -> None:
    """Refuse numbers below `least`, and NaN, by name."""
    for name, value in numbers.items():
        if value is not None and not value >= least:
            raise UserError(f"{name} must be at least {least}, not {value}")


def folder(run: str | Path | RunFolder | None) -> RunFolder | None:
    """The run folder that is given, or at a path, where it is made if there is none."""
    if run is None or isinstance(run, RunFolder):
        return run
    return RunFolder.create(run, {}) if RunFolder(Path(run)).vacant else RunFolder.open(run)


def go_on(state: State, run: RunFolder | None) -> dict[str, Tensor]:
    """Bring the state to a run's last checkpoint, if there is one; returns the best weights so far."""
    history = state.history
    if run is not None and (run.path / CHECKPOINT).exists():
        state.restore(run)
    elif run is not None:
        run.rewind(0)
    best = copied(state.learner)
    if run is not None and history.best is not None:
        if history.best_iteration == history.iteration:  # a crash may have come before they were saved
            run.save(BEST, best, {"iteration": history.iteration})
        else:
            best = run.load(BEST)[0]
    return best


def check_source(learner: Learner, batch: Task) -> None:
    """Refuse tasks to a learner that is trained on ordinary batches, and batches to one that is not."""
    batches = batch.support.x.shape[1] == 0
    if batches and learner.trains_on == "tasks":
        raise TaskError(f"{type(learner).__name__} learns from tasks, but these have no support set")
    if not batches and learner.trains_on == "batches":
        raise TaskError(
            f"{type(learner).__name__} is pretrained on ordinary batches: give it SupervisedBatches(data)"
        )


def copied(learner: Learner) -> dict[str, Tensor]:
    """The learner's weights, which later steps do not change."""
    return {k: v.clone() for k, v in learner.state_dict().items()}


def global_norm(gradient: dict[str, Tensor]) -> float:
    """The Euclidean norm of all gradients together."""
    return float(torch.stack([g.square().sum() for g in gradient.values()]).sum().sqrt())


def validate(learner: Learner, source: TaskSource, n_tasks: int, strategy: Strategy) -> dict[str, float]:
    """Mean and interval of every metric on meta-validation."""
    measured = measure(learner, source, n_tasks, strategy=strategy)
    result = {f"val_{k}": measured.mean(k) for k in measured.values}
    if "accuracy" in measured.values:
        result["val_accuracy_ci95"] = measured.ci95("accuracy")
    return result


def validations_since_best(history: History) -> int:
    """How many validations there were after the best one."""
    return sum(r["iteration"] > history.best_iteration for r in history.records)
