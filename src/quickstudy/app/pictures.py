"""The pictures a run and its evaluations leave beside their numbers."""

from __future__ import annotations

from pathlib import Path

from quickstudy.evaluation.by_step import steps_picture
from quickstudy.evaluation.embedding_map import map_picture, mapped
from quickstudy.evaluation.evaluate import Evaluation, normalising
from quickstudy.evaluation.particulars import Particulars
from quickstudy.evaluation.plots import (
    confusion_matrix,
    presentation_curve,
    reliability,
    task_picture,
    training_curve,
)
from quickstudy.learners import EmbeddingLearner, Learner
from quickstudy.learners.descent import DescentLearner
from quickstudy.outer.run_folder import RunFolder
from quickstudy.tasks import ClassTasks
from quickstudy.tasks.families import FAMILIES


def draw_curve(run: RunFolder) -> Path | None:
    """Draw the training curve of a run into its folder, unless it is there; None for no records yet."""
    records = list(run.records())
    if not records:
        return None
    path, metrics = run.path / "curve.png", run.path / "metrics.jsonl"
    if not path.exists() or path.stat().st_mtime_ns < metrics.stat().st_mtime_ns:
        ways = {"training": run.config.get("training", {}).get("way"), "validation": run.config.get("way")}
        ways = dict.fromkeys(ways) if run.config.get("data") in FAMILIES else ways
        labels = {name: f"meta-{name}" + (f", {way}-way" if way else "") for name, way in ways.items()}
        training_curve(records, path, **labels)
    return path


def draw_evaluation(
    result: Evaluation, besides: Particulars, learner: Learner, source: ClassTasks, stem: Path
) -> list[Path]:
    """Draw calibration, confusions, one task with its predictions, and what its kind of learner does with it:
    a map of its embedding, accuracy by inner step or by presentation; each as `stem` with what it shows.

    >>> stem = Path("runs/a/evaluations/test-5way-1shot")
    >>> draw_evaluation(result, Particulars(), learner, source, stem)  # doctest: +SKIP
    [PosixPath('runs/a/evaluations/test-5way-1shot-calibration.png'), …]
    """

    def named(kind: str) -> Path:
        return stem.with_name(f"{stem.name}-{kind}.png")

    drawn = []
    if result.calibration is not None:
        reliability(result.calibration, named("calibration"))
        drawn.append(named("calibration"))
    if result.confusion:
        confusion_matrix(result.confusion, named("confusion"))
        drawn.append(named("confusion"))
    task = source.task(0)
    if task.support.x.ndim == 4 and task.classes is not None:
        names = [source.data.names[int(c)] for c in task.classes]
        with normalising(learner, result.statistics):
            task_picture(task, learner.adapt(task.support), named("task"), names=names)
        drawn.append(named("task"))
    if isinstance(learner, EmbeddingLearner) and task.classes is not None:
        names = [source.data.names[int(c)] for c in task.classes]
        with normalising(learner, result.statistics):
            map_picture(mapped(learner, task), task, named("map"), names)
        drawn.append(named("map"))
    if isinstance(learner, DescentLearner) and besides.course is not None:
        steps_picture(besides.course, learner.steps, named("steps"))
        drawn.append(named("steps"))
    if besides.presentations is not None:
        way = source.way if isinstance(source.way, int) else source.way[0]
        presentation_curve(besides.presentations, named("presentations"), 1 / way)
        drawn.append(named("presentations"))
    return drawn
