"""A meta-trained learner in the form in which it is to be used: other inner steps, or transductive."""

from __future__ import annotations

import copy

from quickstudy.errors import UserError
from quickstudy.learners import Learner
from quickstudy.learners.descent import DescentLearner
from quickstudy.options import at_least_zero


def in_use(learner: Learner, steps: int | None = None, transductive: bool = False) -> Learner:
    """The learner, or where that is another form than its own, a copy of it.

    Args:
        learner: it is never changed.
        steps: inner steps; None for its own number.
        transductive: whether the net normalises by the queries too, so that these look at each other. A
            learner that was trained so stays so.

    Raises:
        UserError: steps of a learner that takes none, or queries that look at each other in a net without
            batch normalisation.

    Example:
        >>> import quickstudy as qs
        >>> learner = qs.MAML(qs.nets.conv4(4), way=2, steps=1)
        >>> in_use(learner, steps=5).steps_in_use, in_use(learner, steps=1) is learner
        (5, True)
    """
    name = type(learner).__name__
    if steps is not None and not isinstance(learner, DescentLearner):
        raise UserError(f"{name} takes no inner steps: leave steps away")
    at_least_zero(whole=True, steps=steps)
    if transductive and "batch" not in learner.modes:
        raise UserError(f"{name} cannot be transductive: its net has no batch normalisation")
    others = isinstance(learner, DescentLearner) and steps not in (None, learner.steps_in_use)
    looks = transductive and not learner.transductive
    if not (others or looks):
        return learner
    found = copy.deepcopy(learner)
    if isinstance(found, DescentLearner) and others:
        found.test_steps = steps
    if looks:
        found.statistics = "batch"
    return found
