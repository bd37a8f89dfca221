"""How many meta-steps fit into a time: learners are compared by what they make of the same minutes.

A run by the clock could not be repeated: what fits is measured once, before a run, and is then a number of
the run's options like any other. What counts is the processor's time, of all cores together, so that it does
not matter what else a machine does. Building kernels and compiling are not counted.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

from quickstudy.inner.choice import Strategy
from quickstudy.inner.precision import computing_in
from quickstudy.learners import Learner
from quickstudy.nets import native
from quickstudy.outer.config import TrainConfig
from quickstudy.outer.measure import measure
from quickstudy.outer.meta_train import meta_gradient
from quickstudy.outer.optimizers import make_optimizer
from quickstudy.outer.session import threads
from quickstudy.outer.strategy import settle_strategy
from quickstudy.tasks import TaskSource

WARM, MOST, SECONDS = 3, 30, 20.0
"""Meta-steps that are not counted, those that are at most, and how long that may take."""
VALIDATIONS, FEWEST, THEIRS = 20, 4, 0.25
"""In a run: as many, unless they take more than that share of the budget; then fewer, but so many."""
GOLDEN = (5**0.5 - 1) / 2


def within(config: TrainConfig, seconds: float) -> TrainConfig:
    """The run that takes so many seconds of the processor here: its meta-steps, and when it validates.

    Args:
        config: of the run; its own number of iterations is the first guess of for how long `auto` chooses.
    """
    for _ in range(2):  # the second time with the strategy of a run of about this length
        with settled(config) as (learner, tasks, strategy):
            validation = validation_seconds(
                learner, config.problem(config.splits().val), config.validation_tasks, strategy
            )
            if learner.trains_on == "nothing":
                return dataclasses.replace(config, iterations=1, validate_every=1)
            step = step_seconds(learner, tasks, config.meta_batch or 1, strategy, config.optimizer)
        iterations, every = shared(seconds, step, validation)
        config = dataclasses.replace(config, iterations=iterations, validate_every=every)
        with settled(config) as (_, _, anew):
            if anew == strategy:
                break
    return config


@contextmanager
def settled(config: TrainConfig) -> Iterator[tuple[Learner, TaskSource, Strategy]]:
    """A run's learner, its tasks and the strategy by which they are mapped; within the block all is computed
    as in the run."""
    splits, size = config.splits(), config.meta_batch or 1
    learner = config.make_learner(splits.train.image_shape, len(splits.train))
    tasks, asked = config.training_tasks(splits.train), config.strategy or learner.outer.strategy
    with threads(config.threads), computing_in(config.precision), native.settled(config.iterations * size):
        yield learner, tasks, settle_strategy(learner, tasks, size, asked, config.iterations)


def step_seconds(
    learner: Learner, tasks: TaskSource, size: int, strategy: Strategy, optimizer: str | None = None
) -> float:
    """The processor's seconds of a meta-step of `size` tasks, the mean over all stages of a run.

    Some learners take longer at some stage, so that the steps that are timed are spread evenly over them. The
    learner's weights stay, what it notes of its progress does not.
    """
    learner.train()
    parameters = learner.outer_parameters()
    step = make_optimizer(optimizer or learner.outer.optimizer, list(parameters.values()), 0.0).step
    times: list[float] = []
    began, stage = time.process_time(), 0.0
    while len(times) < WARM + 1 or (len(times) < WARM + MOST and time.process_time() - began < SECONDS):
        before = time.process_time()
        outcome, gradient = meta_gradient(learner, tasks, len(times), size, strategy, seed=0)
        for name, p in parameters.items():
            p.grad = gradient[name]
        step()
        stage = (stage + GOLDEN) % 1.0
        learner.after_step({k: v.mean(0) for k, v in outcome.stats.items()}, gradient, stage)
        times.append(time.process_time() - before)
    learner.eval()
    return statistics.mean(times[WARM:])


def validation_seconds(learner: Learner, problem: TaskSource, n_tasks: int, strategy: Strategy) -> float:
    """The processor's seconds of a validation on so many tasks."""
    few = min(20, n_tasks)
    measure(learner, problem, few, strategy=strategy)
    before = time.process_time()
    measure(learner, problem, few, strategy=strategy)
    return (time.process_time() - before) * n_tasks / few


def shared(seconds: float, step: float, validation: float) -> tuple[int, int]:
    """How many meta-steps fit into a time, and after how many of them to validate.

    Args:
        step, validation: the seconds of one.

    >>> shared(600, step=0.1, validation=3.0), shared(600, step=0.1, validation=30.0)
    ((5400, 270), (4500, 900))
    """
    validations = VALIDATIONS
    if VALIDATIONS * validation > THEIRS * seconds:
        validations = max(FEWEST, int(THEIRS * seconds / validation))
    iterations = max(1, int((seconds - validations * validation) / step))
    return iterations, max(1, -(-iterations // validations))
