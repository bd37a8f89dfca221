"""Choose a learner's adaptation settings on meta-validation, never on meta-test."""

from __future__ import annotations

import math
from typing import Any

from quickstudy.evaluation.evaluate import progress_bar
from quickstudy.inner.choice import Strategy
from quickstudy.learners.base import Learner
from quickstudy.outer.measure import measure, worth
from quickstudy.tasks.task import TaskSource


def choose_settings(
    learner: Learner,
    validation: TaskSource,
    n_tasks: int = 100,
    *,
    strategy: Strategy | None = None,
    progress: bool = False,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Try each of `learner.candidates()` on meta-validation tasks, and set the best on the learner.

    Whoever has settings lists six, its usual one among them: the same budget for all. One that was set by
    hand and is not listed is tried first, so that a search never ends below it.

    Args:
        learner: changed in place: its best setting is set; left as it was if the search fails.
        validation: meta-validation tasks; the same ones for each setting.
        n_tasks: tasks for each setting.
        strategy: how tasks are mapped; by default as the learner states in `outer`.
        progress: show a bar on standard error.

    Returns:
        (the chosen setting, every setting tried with its `value`, what it is `worth`; None where that is no
        number); ({}, []) where there is nothing to choose.

    Example:
        >>> chosen, tried = choose_settings(learner, qs.tasks(val, way=5, shot=1))  # doctest: +SKIP
    """
    candidates = learner.candidates()
    if not candidates:
        return {}, []
    own = {name: getattr(learner, name) for name in candidates[0]}
    if own not in candidates:
        candidates = [own, *candidates]
    tried: list[dict[str, Any]] = []
    best, chosen = -math.inf, own
    try:
        with progress_bar(progress) as bar:
            shown = bar.add_task("choosing settings", total=len(candidates), note="")
            for settings in candidates:
                apply(learner, settings)
                measured = measure(learner, validation, n_tasks, strategy=strategy)
                value = worth({k: measured.mean(k) for k in measured.values})
                tried.append({**settings, "value": value if math.isfinite(value) else None})
                if value > best:  # of equals the first; never one that is no number
                    best, chosen = value, settings
                bar.update(shown, advance=1, note=f"best {best:.3f}")
    except BaseException:
        apply(learner, own)
        raise
    apply(learner, chosen)
    return dict(chosen), tried


def apply(learner: Learner, settings: dict[str, Any]) -> None:
    """Set a learner's options."""
    for name, value in settings.items():
        setattr(learner, name, value)
