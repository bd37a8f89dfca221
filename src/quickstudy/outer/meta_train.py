"""The outer loop: meta-gradient, meta-optimiser, validation, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sized
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import torch

from quickstudy.data import ClassDataset
from quickstudy.errors import NonFiniteError, ProcessError, TaskError
from quickstudy.inner.choice import Strategy
from quickstudy.inner.estimate import estimate
from quickstudy.inner.outcome import Outcome
from quickstudy.inner.precision import Precision, computing_in
from quickstudy.inner.rules import Params
from quickstudy.learners.base import Learner
from quickstudy.learners.calling import explained
from quickstudy.learners.registry import options as learner_options
from quickstudy.nets import native
from quickstudy.options import above_zero, at_least_one, at_least_zero
from quickstudy.outer.checkpoint import BEST, History, State
from quickstudy.outer.device import suited
from quickstudy.outer.distributed import world
from quickstudy.outer.interrupt import interrupted_between
from quickstudy.outer.measure import measure
from quickstudy.outer.optimizers import MakeOptimizer, MakeSchedule, make_optimizer, make_schedule
from quickstudy.outer.progress import NoProgress, Progress, display
from quickstudy.outer.run_folder import RunFolder, kept_in, noted
from quickstudy.outer.seeds import seeded
from quickstudy.outer.strategy import check_source, settle_strategy
from quickstudy.tasks.task import TaskSource

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
    precision: Precision = "float32",
    strategy: Strategy | None = None,
    validate_every: int | None = None,
    validation_tasks: int = 200,
    patience: int | None = None,
    seed: int = 0,
    run: str | Path | RunFolder | None = None,
    progress: Progress | bool | None = None,
    log: Callable[[dict[str, Any]], None] = lambda record: None,
    stop: Callable[[dict[str, Any]], bool] | None = None,
) -> History:
    """Meta-train a learner; afterwards it holds the weights that were best on meta-validation.

    Of many processes (`outer/distributed.py`) each computes a share of every meta-batch, and the first alone
    keeps the run, shows a bar and logs.

    Args:
        learner: changed in place.
        tasks: meta-training tasks; meta-step i uses those numbered i·meta_batch to (i+1)·meta_batch - 1.
        validation: meta-validation tasks 0 … validation_tasks - 1, measured every `validate_every` steps.
        iterations: meta-steps.
        meta_batch, optimizer, outer_lr, schedule, strategy: by default what the learner states in `outer`;
            optimizer and schedule may be functions that make one of torch's, but not LBFGS, which needs the
            loss several times a step, nor ReduceLROnPlateau, which is no function of the step.
        clip: largest norm of the meta-gradient, by default what the learner states, mostly None: any.
        precision: in which nets compute, in validation too: "float32", which is that of the weights, or
            "bf16", by torch's autocast. Weights and gradients keep theirs.
        patience: stop after this many validations without a better one.
        seed: of the chance a learner draws in `prepare`, and its net in dropout.
        run: where to keep checkpoints, a folder; if it holds one, training goes on from it, bit for bit. Of a
            `RunFolder` its giver has claimed it and compared the options; at a path that is done here.
        progress: show a bar on standard error, or a display of your own.
        log: called with each record.
        stop: called with each record after that; training ends, as where patience runs out, if it says so.

    Raises:
        UserError: a number that is too small, an unknown precision, or a net that fails on these examples.
        TaskError: the learner is trained on ordinary batches and these are tasks, or the other way round.
        NonFiniteError: the outer loss or the meta-gradient is not a number; it names the meta-step, and the
            state before it is kept.
        ProcessError: another process ended.
    """
    at_least_zero(whole=True, iterations=iterations)
    at_least_zero(outer_lr=outer_lr)
    at_least_one(meta_batch=meta_batch, validate_every=validate_every)
    at_least_one(validation_tasks=validation_tasks, patience=patience)
    above_zero(clip=clip)
    outer, here = learner.outer, world()
    clip = outer.clip if clip is None else clip
    show = display(progress) if here.leads else NoProgress()
    params = learner.outer_parameters()
    if not params or learner.trains_on == "nothing":
        return History()
    size, how = meta_batch or outer.meta_batch, strategy or outer.strategy
    every = validate_every or max(min(50, iterations), min(500, iterations // 20), 1)
    if isinstance(tasks, Sized) and len(tasks) < iterations * size:
        raise TaskError(
            f"{iterations} meta-steps of {size} need {iterations * size} tasks: there are {len(tasks)}"
        )
    lr = outer.outer_lr if outer_lr is None else outer_lr
    opt = make_optimizer(optimizer or outer.optimizer, list(params.values()), lr)
    rate = make_schedule(schedule or outer.schedule, opt, iterations)
    options: dict[str, Any] = {
        "learner": type(learner).__name__,
        "settings": settings_of(learner),
        "optimizer": named(optimizer or outer.optimizer),
        "outer_lr": lr,
        "schedule": named(schedule or outer.schedule),
        "meta_batch": size,
        "clip": clip,
        "precision": precision,
        "seed": seed,
        "tasks": tasks.describe(),
    }
    data = getattr(tasks, "data", None)
    if isinstance(run, (str, Path)) and isinstance(data, ClassDataset):
        options["fingerprint"] = data.fingerprint()
    begun_with, begun_by = here.led(lambda: (noted(run, "kernels"), noted(run, "strategy")))
    with ExitStack() as stack:
        stack.enter_context(computing_in(precision))
        kernels = stack.enter_context(native.settled(iterations * size, begun_with))
        asked, how = how, settle_strategy(learner, tasks, size, how, iterations, begun_by)
        replayed = begun_by is not None and asked in ("auto", begun_by)
        options |= {"kernels": begun_with or kernels, "strategy": begun_by if replayed else how}
        place = stack.enter_context(kept_in(run if here.leads else None, options))
        interruption = stack.enter_context(interrupted_between())
        state = State(learner, opt, rate, place)
        state.go_on()
        history = state.history
        learner.train()
        show.begin(iterations, history.iteration)
        try:
            while history.iteration < iterations and not history.stopped_early:
                state.whole, i = True, history.iteration
                interruption()
                outcome, gradient = meta_gradient(learner, tasks, i, size, how, seed)
                norm = finite_norm(outcome, gradient, i, params)
                scale = min(1.0, clip / (norm + 1e-12)) if clip else 1.0
                state.step(outcome, gradient, scale, i / iterations)
                show.step(history.iteration, state.window.latest, size)
                if history.iteration % every == 0 or history.iteration == iterations:
                    record = {"iteration": history.iteration, **state.window.take("train_")}
                    if validation is not None:
                        record |= validate(learner, validation, validation_tasks, how)
                    state.add(record, patience)
                    if here.leads:
                        log(record)
                    show.validated(record)
                    if stop is not None and here.led(partial(stop, record)):
                        history.stopped_early = True
                        state.keep()
                elif time.monotonic() - state.clock >= CHECKPOINT_SECONDS:
                    state.keep()
        except (KeyboardInterrupt, NonFiniteError, ProcessError):
            if state.whole:  # else the last checkpoint stands
                state.keep()
            raise
        finally:
            show.end()
        if validation is not None and history.best is not None:
            learner.load_state_dict(state.best)
        elif place is not None:
            place.save(BEST, learner.state_dict(), {"iteration": history.iteration})
    learner.eval()
    return history


def meta_gradient(
    learner: Learner, tasks: TaskSource, i: int, size: int, strategy: Strategy, seed: int
) -> tuple[Outcome, Params]:
    """The outcome of meta-step i's tasks and the gradient of their mean loss: a function of (seed, i).

    Of many processes each computes it of its share of the tasks, and all get the means over all of them, the
    outcome as that of one task.
    """
    generator = torch.Generator().manual_seed((seed * 1_000_003 + i) % 2**63)
    here = world()
    own = here.share(size)
    # A process without a task of its own computes one all the same, so that all have the same tensors to sum.
    some = own or range(1)
    # Who draws chance draws it for the whole batch, so that it does not depend on the number of processes.
    drawn = range(size) if type(learner).prepare is not Learner.prepare else some
    batch = tasks.batch(np.arange(i * size + drawn.start, i * size + drawn.stop))
    check_source(learner, batch)
    batch = learner.prepare(suited(batch, learner), generator)
    if drawn != some:
        batch = batch.with_tensors({k: v[some.start : some.stop] for k, v in batch.tensors().items()})
    dropout = seeded(int(torch.randint(2**62, (), generator=generator)) + here.rank)
    with dropout, explained(batch.query.x.shape[2:]):
        outcome, gradient = estimate(learner, batch, strategy)
    return (outcome, gradient) if here.size == 1 else averaged(outcome, gradient, len(own), size)


def averaged(outcome: Outcome, gradient: Params, own: int, total: int) -> tuple[Outcome, Params]:
    """The mean outcome `[1]` of all processes' tasks, and gradient: each weighs as many as its own tasks."""
    means = [
        v.mean(0, keepdim=True) for v in (outcome.loss, *outcome.metrics.values(), *outcome.stats.values())
    ]
    found = iter(world().mean([*means, *gradient.values()], own, total))
    loss = next(found)
    metrics, stats, gradient = (
        {k: next(found) for k in named} for named in (outcome.metrics, outcome.stats, gradient)
    )
    return Outcome(loss, metrics, stats), gradient


def finite_norm(outcome: Outcome, gradient: Params, i: int, counted: Collection[str]) -> float:
    """The Euclidean norm of the gradients that are counted, together.

    Raises:
        NonFiniteError: it, any gradient or the outer loss is not a number.
    """
    loss = float(outcome.loss.mean())
    squares = {k: g.square().sum() for k, g in gradient.items()}
    norm = float(torch.stack([squares[k] for k in counted]).sum().sqrt())
    if not all(map(math.isfinite, (loss, norm, *torch.stack([*squares.values()]).tolist()))):
        what = "outer loss" if not math.isfinite(loss) else "meta-gradient"
        raise NonFiniteError(
            f"the {what} is not a finite number at meta-step {i + 1}; the state after meta-step {i} "
            "is kept. Try a lower outer or inner rate, or --clip 1"
        )
    return norm


def settings_of(learner: Learner) -> dict[str, object]:
    """The values of a learner's options now, functions by their names."""
    found = {name: getattr(learner, name, None) for name in learner_options(type(learner), typed=False)}
    return {k: v if isinstance(v, (bool, int, float, str, NoneType)) else named(v) for k, v in found.items()}


def named(how: object) -> str:
    """What an optimiser, a schedule or a method is called: its name, or that of the function that makes it,
    with what it was given.

    >>> from quickstudy.inner import flat, truncated
    >>> named("adam"), named(truncated(2)), named(partial(flat, keep=1))
    ('adam', 'truncated(k=2)', 'flat(keep=1)')
    """
    if isinstance(how, partial):
        given = [("", v) for v in how.args] + [(f"{k}=", v) for k, v in how.keywords.items()]
        return f"{named(how.func)}({', '.join(k + (named(v) if callable(v) else repr(v)) for k, v in given)})"
    return how if isinstance(how, str) else getattr(how, "__qualname__", type(how).__name__).lstrip("_")


def validate(learner: Learner, source: TaskSource, n_tasks: int, strategy: Strategy) -> dict[str, float]:
    """Mean and interval of every metric on meta-validation."""
    measured = measure(learner, source, n_tasks, strategy=strategy)
    result = {f"val_{k}": measured.mean(k) for k in measured.values}
    if "accuracy" in measured.values:
        result["val_accuracy_ci95"] = measured.ci95("accuracy")
    return result
