"""`evaluate`: adapt to many unseen tasks and say how well it went."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from quickstudy.errors import UserError
from quickstudy.evaluation.scores import Calibration, calibration, confusion, macro_precision
from quickstudy.inner.mapping import map_tasks
from quickstudy.learners.base import Learner
from quickstudy.outer.measure import Measurement
from quickstudy.outer.progress import columns
from quickstudy.tasks.task import Task


class Source(Protocol):
    """Tasks that say what they are."""

    def batch(self, indices: np.ndarray) -> Task: ...
    def describe(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Evaluation:
    """What was measured on `tasks` tasks; accuracy from 0 to 1, `ci95` half the width of its 95 % interval.

    For regression `accuracy` is None and `ci95` is that of the loss, the mean squared error.
    """

    accuracy: float | None
    ci95: float
    loss: float
    tasks: int
    transductive: bool
    statistics: str | None
    precision: float | None = None
    calibration: Calibration | None = None
    confusion: dict[str, dict[str, int]] = field(default_factory=dict, repr=False)
    about: dict[str, Any] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """The numbers as JSON, without the confusion."""
        return {
            "accuracy": self.accuracy,
            "ci95": self.ci95,
            "loss": self.loss,
            "precision": self.precision,
            "calibration_error": self.calibration.error if self.calibration else None,
            "tasks": self.tasks,
            "transductive": self.transductive,
            "statistics": self.statistics,
            **self.about,
        }

    @property
    def mode(self) -> str:
        """How queries were normalised, in words."""
        kind = "transductive" if self.transductive else "non-transductive"
        return f"{kind}: {self.statistics} statistics" if self.statistics else kind

    def __str__(self) -> str:
        few = "" if self.tasks >= 600 else ", fewer than the 600 a published number needs"
        if self.accuracy is None:
            return f"mean squared error {self.loss:.4f} ± {self.ci95:.4f} ({self.tasks} tasks{few})"
        a = self.about
        kind = f"{a.get('way')}-way {a.get('shot')}-shot, {a.get('query')} queries a class"
        return (
            f"{100 * self.accuracy:.2f} ± {100 * self.ci95:.2f} % ({self.tasks} tasks{few}, {kind}, {self.mode}); "
            f"macro precision {100 * (self.precision or 0):.2f} %, loss {self.loss:.3f}, calibration "
            f"error {self.calibration.error if self.calibration else 0:.3f}"
        )


@contextmanager
def normalising(learner: Learner, statistics: str | None) -> Iterator[None]:
    """The learner in evaluation, normalising by `statistics`, put back afterwards."""
    before, training = learner.statistics, learner.training
    if statistics is not None:
        if statistics not in learner.modes:
            known = ", ".join(learner.modes) or "none: it has no batch normalisation"
            raise UserError(f"this run cannot normalise by {statistics} statistics (it can by: {known})")
        learner.statistics = statistics
    learner.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        learner.statistics = before
        learner.train(training)


def _scores(learner: Learner, task: Task) -> dict[str, Tensor]:
    """One task's loss and, for classes, its accuracy and each query's prediction and confidence."""
    output = learner.learn(task.support)(task.query.x)
    scores = dict(learner.judged(output, task).metrics)
    if task.support.way is not None:
        confidence, predicted = output.softmax(-1).max(-1)
        scores |= {"confidence": confidence, "predicted": predicted}
    return scores


def evaluate(
    learner: Learner,
    source: Source,
    n_tasks: int = 1000,
    *,
    statistics: str | None = None,
    chunk: int = 20,
    progress: bool = False,
) -> Evaluation:
    """Adapt to tasks 0 … n_tasks - 1 of a source and score the predictions; no second-order graph is built.

    Args:
        learner: left as it was.
        source: tasks over classes the learner has not seen.
        n_tasks: at least 600 for a number to publish.
        statistics: normalise by "support", "running" or "batch" statistics instead of the learner's own way.
        chunk: tasks that are mapped at once.
        progress: show a bar on standard error.

    Raises:
        UserError: a mode that the learner's net does not have.
    """
    values: dict[str, list[Tensor]] = {}
    confidences, corrects, trues, guesses, precisions = [], [], [], [], []
    bar = Progress(*columns(), console=Console(file=sys.stderr), transient=True, disable=not progress)
    with bar, normalising(learner, statistics):
        shown = bar.add_task("evaluating", total=n_tasks, note="")
        own = learner.statistics if learner.modes else None
        transductive = learner.transductive
        for start in range(0, n_tasks, chunk):
            batch = source.batch(np.arange(start, min(start + chunk, n_tasks)))
            # Padded tasks have queries in different numbers: one at a time.
            parts = list(batch.unbatch()) if batch.padded else [batch]
            for part in parts:
                alone = batch.padded
                if alone:
                    scores = {k: v[None] for k, v in _scores(learner, part).items()}
                else:
                    scores = map_tasks(lambda t: _scores(learner, t), part, learner.outer.strategy)
                for name in ("loss", "accuracy"):
                    if name in scores:
                        values.setdefault(name, []).append(scores[name])
                if "predicted" not in scores:
                    continue
                y = part.query.y[None] if alone else part.query.y  # [T, q]
                predicted, way = scores["predicted"], part.support.way or 0
                precisions += [macro_precision(p, t, way) for p, t in zip(predicted, y, strict=True)]
                confidences.append(scores["confidence"].flatten())
                corrects.append((predicted == y).flatten())
                if part.classes is not None:
                    classes = part.classes[None] if alone else part.classes  # [T, N]
                    trues.append(classes.gather(1, y).flatten())
                    guesses.append(classes.gather(1, predicted).flatten())
            bar.update(shown, completed=min(start + chunk, n_tasks))
    measured = Measurement({k: torch.cat(v) for k, v in values.items()})
    classes_told = "accuracy" in measured.values
    names = getattr(getattr(source, "data", None), "names", None)
    about = {k: v for k, v in source.describe().items() if k in ("data", "way", "shot", "query", "seed")}
    return Evaluation(
        accuracy=measured.mean("accuracy") if classes_told else None,
        ci95=measured.ci95("accuracy" if classes_told else "loss"),
        loss=measured.mean("loss"),
        tasks=n_tasks,
        transductive=transductive,
        statistics=own,
        precision=float(torch.stack(precisions).mean()) if precisions else None,
        calibration=calibration(torch.cat(confidences), torch.cat(corrects)) if confidences else None,
        confusion=confusion(torch.cat(trues), torch.cat(guesses), names) if names and trues else {},
        about=about,
    )


def evaluate_modes(
    learner: Learner, source: Source, n_tasks: int = 1000, *, progress: bool = False
) -> list[Evaluation]:
    """An `Evaluation` for each normalisation mode that applies, the learner's own first."""
    own = learner.statistics
    modes = sorted(learner.modes, key=lambda mode: mode != own) or [None]  # type: ignore[list-item]
    return [evaluate(learner, source, n_tasks, statistics=mode, progress=progress) for mode in modes]
