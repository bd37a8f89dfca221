"""Choose a learner's adaptation settings on meta-validation, never on meta-test."""

from __future__ import annotations

from typing import Any

from quickstudy.learners.base import Learner
from quickstudy.outer.measure import measure
from quickstudy.tasks.task import TaskSource


def choose_settings(
    learner: Learner, validation: TaskSource, n_tasks: int = 100
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Try each of `learner.settings()` on meta-validation tasks and keep the best.

    Every learner that has settings lists six, so all are searched with the same budget.

    Returns:
        (the chosen settings, every setting tried with its value); ({}, []) where there is nothing to choose.
    """
    tried: list[dict[str, Any]] = []
    for settings in learner.settings():
        apply(learner, settings)
        measured = measure(learner, validation, n_tasks)
        value = measured.mean("accuracy") if "accuracy" in measured.values else -measured.mean("loss")
        tried.append({**settings, "value": value})
    if not tried:
        return {}, []
    best = max(tried, key=lambda row: row["value"])
    chosen = {k: v for k, v in best.items() if k != "value"}
    apply(learner, chosen)
    return chosen, tried


def apply(learner: Learner, settings: dict[str, Any]) -> None:
    """Set a learner's options."""
    for name, value in settings.items():
        setattr(learner, name, value)
