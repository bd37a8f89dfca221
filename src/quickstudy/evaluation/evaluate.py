"""`evaluate`: adapt to many unseen tasks and say how well it went."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from itertools import chain
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from quickstudy.errors import UserError
from quickstudy.evaluation.scores import Calibration, Confusion, calibration, confusion, macro_precision
from quickstudy.inner.choice import Strategy
from quickstudy.learners.base import Learner
from quickstudy.outer.distributed import world
from quickstudy.outer.measure import Measurement, collect
from quickstudy.outer.progress import columns
from quickstudy.tasks.task import Task, TaskSource

SEED = 2
"""Of the meta-test tasks that runs are measured on: the same, so that they can be compared task by task."""
ENOUGH = 600
"""Tasks a published number is usually measured on, at least."""


@dataclass(frozen=True)
class Evaluation:
    """What was measured on `tasks` tasks; accuracy from 0 to 1, `ci95` half the width of its 95 % interval.

    For regression `accuracy` is None and `ci95` is that of the loss, the mean squared error.

    Args:
        precision: macro precision, the mean over tasks.
        calibration: the expected calibration error of all queries together, and its bins.
        confusion: true class → {predicted class: how often}, by the data set's names.
        metrics: the means of what else the learner reports.
        way, shot, query: (lowest, highest) where they vary from task to task.
        drawn: how else the tasks were drawn that is not usual (ragged, environments …).
        by_task: the accuracy, or the loss, of each task.
    """

    accuracy: float | None
    ci95: float
    loss: float
    tasks: int
    transductive: bool
    statistics: str | None = None
    precision: float | None = None
    data: str | None = None
    way: Any = None
    shot: Any = None
    query: Any = None
    seed: int | None = None
    drawn: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    calibration: Calibration | None = field(default=None, repr=False)
    confusion: Confusion = field(default_factory=dict, repr=False)
    by_task: Sequence[float] = field(default=(), repr=False)

    @property
    def ece(self) -> float | None:
        """The expected calibration error; None for regression."""
        return self.calibration.error if self.calibration else None

    def json(self) -> dict[str, Any]:
        """The numbers as JSON, without bins and confusion; null for what is not a finite number."""
        kept = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("drawn", "metrics", "calibration", "confusion", "by_task"):
            del kept[name]
        kept |= {**self.drawn, **self.metrics, "calibration_error": self.ece}
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in kept.items()}

    @property
    def mode(self) -> str:
        """How queries were normalised, in words."""
        kind = "transductive" if self.transductive else "non-transductive"
        return f"{kind}: {self.statistics} statistics" if self.statistics else kind

    def __str__(self) -> str:
        few = "" if self.tasks >= ENOUGH else f", fewer than the {ENOUGH} a published number needs"
        if self.accuracy is None:
            number = f"mean squared error {self.loss:.4f} ± {self.ci95:.4f}"
            if "log_likelihood" in self.metrics:
                number += f", log-likelihood {self.metrics['log_likelihood']:.3f} nats a point"
            return f"{number} ({self.tasks} tasks{few}, {self.shot}-shot, {self.query} queries)"
        number = f"{100 * self.accuracy:.2f} ± {100 * self.ci95:.2f} %"
        kind = f"{count(self.way)}-way {count(self.shot)}-shot, {queries(self.query)} a class"
        more, besides = (self.drawn.get(name) for name in ("unlabelled", "distractors"))
        kind += f", unlabelled: {more}" if more else ""
        kind += f" and of {besides} classes besides" if besides else ""
        rest = [f"loss {self.loss:.3f}"]
        if self.precision is not None and self.ece is not None:  # else the learner told no predictions
            rest = [
                f"macro precision {100 * self.precision:.2f} %",
                *rest,
                f"calibration error {self.ece:.3f}",
            ]
        rest += [f"{name} {value:.3f}" for name, value in self.metrics.items()]
        return f"{number} ({self.tasks} tasks{few}, {kind}, {self.mode}); {', '.join(rest)}"


def count(value: Any) -> str:
    """A number, or a range of them, in words.

    >>> count(5), count((2, 5))
    ('5', '2 to 5')
    """
    return f"{value[0]} to {value[1]}" if isinstance(value, (tuple, list)) else str(value)


def queries(value: Any) -> str:
    """So many queries, in words.

    >>> queries(1), queries((1, 3))
    ('1 query', '1 to 3 queries')
    """
    return f"{count(value)} {'query' if value == 1 else 'queries'}"


def progress_bar(wanted: bool) -> Progress:
    """A bar on standard error, in a terminal; elsewhere nothing."""
    console = Console(file=sys.stderr)
    shown = wanted and console.is_terminal and world().leads
    return Progress(*columns(), console=console, transient=True, disable=not shown)


@contextmanager
def normalising(learner: Learner, statistics: str | None) -> Iterator[None]:
    """The learner normalising by `statistics`; afterwards it is as it was."""
    before = learner.statistics
    if statistics is not None and statistics not in learner.modes:
        known = ", ".join(learner.modes) or "none: it has no batch normalisation"
        raise UserError(f"this learner cannot normalise by {statistics} statistics (it can by: {known})")
    try:
        learner.statistics = statistics or before
        yield
    finally:
        learner.statistics = before


def scores(learner: Learner, task: Task) -> dict[str, Tensor]:
    """One task's metrics and, for classes, each query's prediction and its probability `[q]`."""
    outcome = learner.judge(task)
    if task.support.way is None or outcome.outputs is None:
        return dict(outcome.metrics)
    confidence, predicted = outcome.outputs.softmax(-1).max(-1)  # of [q, N]
    return {**outcome.metrics, "confidence": confidence, "predicted": predicted}


def evaluate(
    learner: Learner,
    source: TaskSource,
    n_tasks: int = 1000,
    *,
    statistics: str | None = None,
    strategy: Strategy | None = None,
    chunk: int = 20,
    progress: bool = False,
) -> Evaluation:
    """Adapt to tasks 0 … n_tasks - 1 of a source and score the predictions; no graph outlives a step.

    Many processes share the tasks, and all get the same evaluation. However the learner was trained, its net
    computes in the precision of its weights, unless `inner.computing_in` says otherwise.

    Args:
        learner: left as it was.
        source: tasks over classes the learner has not seen, or regression tasks.
        n_tasks: at least 600 for a number to publish.
        statistics: normalise by "support", "running" or "batch" statistics instead of the learner's own way.
        strategy: how tasks are mapped; by default as the learner states in `outer`.
        chunk: tasks that are mapped at once.
        progress: show a bar on standard error.

    Raises:
        TaskError: fewer than one task, or more than there are.
        UserError: a mode that the learner's net does not have.

    Example:
        >>> print(evaluate(learner, qs.tasks(test, way=5, shot=1)))  # doctest: +SKIP
        98.31 ± 0.17 % (1000 tasks, 5-way 1-shot, 15 queries a class, non-transductive: support statistics); …
    """
    tally = Tally()
    with progress_bar(progress) as bar, normalising(learner, statistics):
        shown = bar.add_task("evaluating", total=len(world().share(n_tasks)), note="")
        used: dict[str, Any] = {
            "statistics": learner.statistics if learner.modes else None,
            "transductive": learner.transductive,
        }

        def take(batch: Task, found: dict[str, Tensor]) -> None:
            tally.add(batch, found)
            bar.update(shown, advance=len(batch.support.x), note=tally.note() if progress else "")

        collect(learner, source, n_tasks, scores, take, strategy=strategy, chunk=chunk)
    tally.gather()
    told = dict(source.describe())
    about: dict[str, Any] = {k: told.pop(k, None) for k in ("data", "way", "shot", "query", "seed")}
    told.pop("classes", None)
    names = getattr(getattr(source, "data", None), "names", None)
    return Evaluation(tasks=n_tasks, **used, **about, drawn=told, **tally.result(names))


class Tally:
    """What is collected from task after task; queries `[q]` of tasks of any size end to end."""

    def __init__(self) -> None:
        self.tasks: dict[str, list[Tensor]] = {}
        self.queries: dict[str, list[Tensor]] = {}

    def add(self, batch: Task, found: dict[str, Tensor]) -> None:
        """The `scores` of a batch of T tasks of one size: metrics `[T]`, predictions `[T, q]`."""
        found = dict(found)
        if "predicted" in found:
            predicted, confidence = found.pop("predicted"), found.pop("confidence")
            y, way = batch.query.y, batch.support.way or 0
            found["precision"] = macro_precision(predicted, y, way)
            queries = {"confidence": confidence, "correct": predicted == y}
            if batch.classes is not None:
                queries |= {"true": batch.classes.gather(1, y), "guess": batch.classes.gather(1, predicted)}
            for name, value in queries.items():
                self.queries.setdefault(name, []).append(value.flatten().cpu())
        for name, value in found.items():
            self.tasks.setdefault(name, []).append(value.cpu())

    def gather(self) -> None:
        """Take in what the other processes collected, in the order of the tasks."""
        everyone = world().gathered([(self.tasks, self.queries)])
        self.tasks, self.queries = (
            {k: [v for part in parts for v in part.get(k, [])] for k in dict.fromkeys(chain(*parts))}
            for parts in zip(*everyone, strict=True)
        )

    def note(self) -> str:
        """The mean so far, for a progress bar."""
        name = "accuracy" if "accuracy" in self.tasks else "loss"
        return f"{name} {float(torch.cat(self.tasks[name]).mean()):.3f}"

    def result(self, names: tuple[str, ...] | None) -> dict[str, Any]:
        """The fields of an `Evaluation`; `names` are the data set's class names."""
        measured = Measurement({k: torch.cat(v) for k, v in self.tasks.items()})
        queries = {k: torch.cat(v) for k, v in self.queries.items()}
        means = {k: measured.mean(k) for k in measured.values}
        main = "accuracy" if "accuracy" in means else "loss"
        result: dict[str, Any] = {
            "ci95": measured.ci95(main),
            "by_task": tuple(round(v, 7) for v in measured.values[main].tolist()),
            "accuracy": means.pop("accuracy", None),
            "loss": means.pop("loss"),
            "precision": means.pop("precision", None),
            "metrics": means,
        }
        if queries:
            result["calibration"] = calibration(queries["confidence"], queries["correct"])
        if names and "true" in queries:
            result["confusion"] = confusion(queries["true"], queries["guess"], names)
        return result


def evaluate_modes(
    learner: Learner,
    source: TaskSource,
    n_tasks: int = 1000,
    *,
    strategy: Strategy | None = None,
    progress: bool = False,
) -> list[Evaluation]:
    """An `Evaluation` for each normalisation mode that applies, the learner's own first."""
    own = learner.statistics
    # A net without batch normalisation has no modes: it is measured once, as it is.
    modes: list[str | None] = [*sorted(learner.modes, key=lambda mode: mode != own)] or [None]
    return [
        evaluate(learner, source, n_tasks, statistics=mode, strategy=strategy, progress=progress)
        for mode in modes
    ]
