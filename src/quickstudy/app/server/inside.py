"""What happens inside: how a learner came to the answers of a classifier, for whoever wants to see it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from quickstudy.app.estimators import FewShotClassifier
from quickstudy.errors import UserError
from quickstudy.evaluation.by_step import descended
from quickstudy.evaluation.embedding_map import principal_plane
from quickstudy.learners import EmbeddingLearner, Learner, Predictor
from quickstudy.learners.descent import DescentLearner
from quickstudy.outer.device import suited
from quickstudy.tasks.task import Query, Support, Task

DIVERGED = (
    "the learner's numbers grew beyond bounds on these examples: take fewer inner steps, or other pictures"
)
POINTS = 21
"""Of a course, at most: the first, the last, and others evenly between them."""


def shows(learner: Learner) -> str | None:
    """What there is to see of how a learner learns: its "steps", a "map" of its embedding, or nothing."""
    if isinstance(learner, DescentLearner):
        return "steps"
    return "map" if isinstance(learner, EmbeddingLearner) else None


def inside(classifier: FewShotClassifier, pictures: Sequence[Image.Image]) -> dict[str, Any]:
    """The course of a classifier's inner learning, or the map of its examples, as JSON.

    Args:
        classifier: fitted.
        pictures: queries, that are looked at too.

    Raises:
        UserError: there is nothing to see of how this learner learns.
    """
    learner = classifier.learner_
    if shows(learner) is None:
        raise UserError(f"there is nothing to see of how {type(learner).__name__} learns")
    learner = copy.deepcopy(learner)  # nobody waits for who only looks
    given = classifier.support_
    support = Support.of(given.x, given.y)
    x = classifier._read(list(pictures), reset=False) if pictures else support.x[:0]
    task = suited(Task(support, Query(x, torch.zeros(len(x), dtype=torch.int64))), learner)
    labels = [str(label) for label in np.unique(classifier._y)]
    with learner.in_use(), torch.no_grad():
        if isinstance(learner, DescentLearner):
            return {"kind": "steps", "steps": course(learner, task, labels)}
        assert isinstance(learner, EmbeddingLearner)
        return {"kind": "map", "map": places(learner, task, labels)}


def course(learner: DescentLearner, task: Task, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Loss and accuracy on the examples themselves, and what queries are taken for, after each inner step."""
    steps = learner.steps_in_use
    found: list[dict[str, Any]] = []

    def look(step: int, predictor: Predictor) -> None:
        output, y = predictor.function(task.support.x), task.support.y
        p = predictor.function(task.query.x).softmax(-1) if len(task.query.x) else output[:0]
        if not (output.isfinite().all() and p.isfinite().all()):
            raise UserError(DIVERGED)
        found.append(
            {
                "step": step,
                "loss": round(float(F.cross_entropy(output, y)), 6),
                "accuracy": round(float((output.argmax(-1) == y).float().mean()), 6),
                "probabilities": [
                    {label: round(float(v), 6) for label, v in zip(labels, row, strict=True)} for row in p
                ],
            }
        )

    descended(learner, task.support, {round(s) for s in np.linspace(0, steps, POINTS)}, look)
    return found


def places(learner: EmbeddingLearner, task: Task, labels: Sequence[str]) -> dict[str, Any]:
    """Examples, their class means and queries on the plane on which the examples' features vary most."""
    z, embed, _ = learner.embedded(task.support)  # [n, D]
    if not z.isfinite().all():
        raise UserError(DIVERGED)
    means = torch.stack([z[task.support.y == c].mean(0) for c in range(len(labels))])  # [N, D]
    place, shown = principal_plane(z)
    queries = place(embed(task.query.x)) if len(task.query.x) else torch.empty(0, 2)

    def points(where: Tensor) -> list[dict[str, float]]:
        return [{"x": round(x, 6), "y": round(y, 6)} for x, y in where.tolist()]

    return {
        "shown": round(shown, 6),
        "examples": [
            {"label": labels[int(c)], **point}
            for c, point in zip(task.support.y, points(place(z)), strict=True)
        ],
        "means": [
            {"label": label, **point} for label, point in zip(labels, points(place(means)), strict=True)
        ],
        "queries": points(queries),
    }
