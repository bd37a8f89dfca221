"""By which strategy a run maps its tasks: decided, and compiled, before the first meta-step."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import numpy as np
import torch

from quickstudy.errors import TaskError
from quickstudy.inner.choice import Strategy, choose
from quickstudy.inner.compiled import prepared
from quickstudy.inner.estimate import estimate
from quickstudy.inner.programs import available
from quickstudy.learners.base import Learner
from quickstudy.learners.calling import explained
from quickstudy.outer.device import suited
from quickstudy.outer.distributed import world
from quickstudy.tasks.task import Task, TaskSource

_log = logging.getLogger("quickstudy")


def settle_strategy(
    learner: Learner,
    tasks: TaskSource,
    size: int,
    strategy: Strategy,
    iterations: int,
    begun_by: Strategy | None = None,
    say: Callable[[str], None] = _log.info,
) -> Strategy:
    """What "auto" comes to for a run, in the first of many processes for all; any other strategy as it is,
    but vmap where one of them cannot compile.

    Args:
        size: tasks a meta-step, of all processes together.
        iterations: meta-steps; compiling pays in long runs only.
        begun_by: what a run that goes on was begun by; None for what begins.
        say: called with a line before and after a meta-step is compiled.
    """
    if strategy == "auto" and begun_by is not None:
        strategy = begun_by
    if learner.trains_on == "nothing" or not iterations or strategy not in ("auto", "compile"):
        return strategy
    here, before = world(), learner.training
    learner.train()
    try:
        batch = tried(learner, tasks, range(size))
        with explained(batch.query.x.shape[2:]):
            if strategy == "auto":
                strategy = here.led(lambda: chosen(learner, batch, iterations))
            if strategy == "compile" and not batch.padded:
                own = here.share(size) or range(1)
                strategy = made_ready(learner, batch if here.size == 1 else tried(learner, tasks, own), say)
    finally:
        learner.train(before)
    if begun_by == "compile" and strategy != "compile":
        say("begun with compiled meta-steps, this run goes on without: not bit for bit")
    return strategy


def tried(learner: Learner, tasks: TaskSource, indices: range) -> Task:
    """Some tasks as a meta-step is given them."""
    batch = tasks.batch(np.asarray(indices))
    check_source(learner, batch)
    return learner.prepare(suited(batch, learner), torch.Generator().manual_seed(0))


def chosen(learner: Learner, batch: Task, iterations: int) -> Strategy:
    """What "auto" comes to for such tasks."""
    return choose(lambda part, how: estimate(learner, part, how), learner, batch, meta_steps=iterations)


def made_ready(learner: Learner, batch: Task, say: Callable[[str], None]) -> Strategy:
    """Compile a meta-step of such tasks: "compile", or "vmap" where that fails in some process."""
    began, ready = time.monotonic(), prepared(learner, batch)
    if not ready:
        if available(batch.support.x.device):
            say("compiling the meta-step: some minutes at first, seconds where a run before made it")
        estimate(learner, batch, "compile")
    if not all(world().gathered([prepared(learner, batch)])):
        return "vmap"
    if not ready:
        say(f"compiled in {time.monotonic() - began:.0f} s; what was made is kept for other runs")
    return "compile"


def check_source(learner: Learner, batch: Task) -> None:
    """Refuse tasks to a learner that is trained on ordinary batches, and batches to one that is not."""
    batches = batch.support.x.shape[1] == 0
    if batches and learner.trains_on == "tasks":
        raise TaskError(f"{type(learner).__name__} learns from tasks, but these have no support set")
    if not batches and learner.trains_on == "batches":
        raise TaskError(
            f"{type(learner).__name__} is pretrained on ordinary batches: give it SupervisedBatches(data)"
        )
