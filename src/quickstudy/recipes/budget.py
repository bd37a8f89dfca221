"""How many meta-steps fit into a time: learners are compared by what they make of the same minutes."""

from __future__ import annotations

import statistics
import time

from quickstudy.inner.precision import computing_in
from quickstudy.nets import native
from quickstudy.outer.config import TrainConfig
from quickstudy.outer.measure import measure
from quickstudy.outer.meta_train import meta_gradient
from quickstudy.outer.optimizers import make_optimizer
from quickstudy.outer.session import threads
from quickstudy.outer.strategy import settle_strategy

WARM, MOST, SECONDS = 3, 30, 20.0
"""Meta-steps that are not counted, those that are at most, and how long that may take."""
VALIDATIONS = 20
"""In a run."""


def iterations_within(config: TrainConfig, seconds: float) -> int:
    """How many meta-steps of such a run fit into so many seconds here, validations included.

    A run by the clock could not be repeated: this is measured once, before it, and is then a number of the
    run's options like any other. Building kernels and compiling are not counted.

    Args:
        config: of the run; its own number of iterations says for how long a run `auto` chooses a strategy.

    Returns:
        At least 1.
    """
    with threads(config.threads), computing_in(config.precision):
        splits = config.splits()
        learner = config.make_learner(splits.train.image_shape, len(splits.train))
        if learner.trains_on == "nothing":
            return 1
        tasks, problem = config.training_tasks(splits.train), config.problem(splits.val)
        size = config.meta_batch or 1
        with native.settled(config.iterations * size, None):
            strategy = settle_strategy(
                learner, tasks, size, config.strategy or learner.outer.strategy, config.iterations
            )
            learner.train()
            parameters = [p for p in learner.parameters() if p.requires_grad]
            step = make_optimizer(config.optimizer or learner.outer.optimizer, parameters, 0.0).step
            times: list[float] = []
            began = time.perf_counter()
            while len(times) < WARM + 1 or (
                len(times) < MOST + WARM and time.perf_counter() - began < SECONDS
            ):
                before = time.perf_counter()
                _, gradient = meta_gradient(learner, tasks, len(times), size, strategy, config.seed)
                for p, g in zip(parameters, gradient.values(), strict=True):
                    p.grad = g
                step()
                times.append(time.perf_counter() - before)
            learner.eval()
            few = min(20, config.validation_tasks)
            measure(learner, problem, few, strategy=strategy)
            before = time.perf_counter()
            measure(learner, problem, few, strategy=strategy)
            validating = (time.perf_counter() - before) * config.validation_tasks / few
    left = max(seconds - VALIDATIONS * validating, seconds / 2)
    return max(1, int(left / statistics.median(times[WARM:])))
