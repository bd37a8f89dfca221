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
from quickstudy.learners.base import Learner, explained
from quickstudy.outer.device import suited
from quickstudy.outer.distributed import world
from quickstudy.tasks.task import Task, TaskSource

_log = logging.getLogger("quickstudy")


def settled(
    learner: Learner,
    tasks: TaskSource,
    size: int,
    strategy: Strategy,
    iterations: int,
    say: Callable[[str], None] = _log.info,
) -> Strategy:
    """What "auto" comes to for a run; any other strategy as it is, but vmap where compiling fails.

    Args:
        size: tasks a meta-step, of all processes together.
        iterations: meta-steps; compiling pays in long runs only.
        say: called with a line where a meta-step is compiled.
    """
    if learner.trains_on == "nothing" or strategy not in ("auto", "compile"):
        return strategy
    batch = tasks.batch(np.arange(len(world().share(size)) or 1))
    check_source(learner, batch)
    batch, before = suited(batch, learner), learner.training
    learner.train()
    try:
        batch = learner.prepare(batch, torch.Generator().manual_seed(0))
        with explained(batch.query.x.shape[2:]):
            if strategy == "auto":
                strategy = choose(
                    lambda part, how: estimate(learner, part, how), learner, batch, meta_steps=iterations
                )
            if strategy == "compile" and not batch.padded:
                began, ready = time.monotonic(), prepared(learner, batch)
                estimate(learner, batch, "compile")
                if not prepared(learner, batch):
                    strategy = "vmap"
                elif not ready:
                    say(f"meta-step compiled in {time.monotonic() - began:.0f} s, what was made is kept")
    finally:
        learner.train(before)
    return strategy


def check_source(learner: Learner, batch: Task) -> None:
    """Refuse tasks to a learner that is trained on ordinary batches, and batches to one that is not."""
    batches = batch.support.x.shape[1] == 0
    if batches and learner.trains_on == "tasks":
        raise TaskError(f"{type(learner).__name__} learns from tasks, but these have no support set")
    if not batches and learner.trains_on == "batches":
        raise TaskError(
            f"{type(learner).__name__} is pretrained on ordinary batches: give it SupervisedBatches(data)"
        )
