"""Pictures of a run: the training curve, a task with its predictions, calibration, the worst confusions."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from quickstudy.evaluation.scores import Calibration
from quickstudy.learners.base import Predictor
from quickstudy.outer.atomic import write_bytes
from quickstudy.tasks.task import Task

BLUE, GREEN, RED, GREY = "#2f6fb0", "#2e8b57", "#c0392b", "#8a8f98"


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: str | Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    write_bytes(Path(path), buffer.getvalue())


def _clean(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def training_curve(records: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Loss and accuracy by meta-step, training and meta-validation with its 95 % band.

    Args:
        records: the lines of metrics.jsonl.
        path: the PNG to write.
    """
    kinds = [k for k in ("accuracy", "loss") if any(f"train_{k}" in r or f"val_{k}" in r for r in records)]
    figure = _figure(4.8 * max(1, len(kinds)), 3.4)
    for place, kind in enumerate(kinds):
        axes = figure.add_subplot(1, len(kinds), place + 1)
        for name, colour, label in (("train", GREY, "meta-training"), ("val", BLUE, "meta-validation")):
            points = [(r["iteration"], r[f"{name}_{kind}"]) for r in records if f"{name}_{kind}" in r]
            if not points:
                continue
            x, y = map(np.array, zip(*points, strict=True))
            axes.plot(x, y, color=colour, label=label, marker="o", markersize=3, linewidth=1.6)
            if kind == "accuracy" and name == "val":
                band = np.array([r["val_accuracy_ci95"] for r in records if "val_accuracy" in r])
                axes.fill_between(x, y - band, y + band, color=colour, alpha=0.15, linewidth=0)
        axes.set_xlabel("meta-step")
        axes.set_title(kind, loc="left", fontsize=11)
        axes.legend(frameon=False, fontsize=9)
        _clean(axes)
    _save(figure, path)


def task_picture(
    task: Task, predictor: Predictor, path: str | Path, names: Sequence[str] | None = None, queries: int = 6
) -> None:
    """A task as a table of pictures: a row a class, its support examples, then queries with their answers.

    Args:
        task: one task over pictures.
        predictor: what a learner made of its support set.
        path: the PNG to write.
        names: class names, by label.
        queries: how many queries a class to show.
    """
    way = task.support.way or 0
    probability, predicted = predictor.probabilities(task.query.x).max(-1)
    support_y, query_y = task.support.y.tolist(), task.query.y.tolist()
    rows = [[i for i, y in enumerate(support_y) if y == c][:5] for c in range(way)]
    asked = [[i for i, y in enumerate(query_y) if y == c][:queries] for c in range(way)]
    left, right = max(map(len, rows)), max(map(len, asked))
    figure = _figure(0.95 * (left + right) + 1.6, 1.12 * way + 0.55)
    grid = figure.add_gridspec(way, left + right + 1, width_ratios=[1] * left + [0.35] + [1] * right)
    labels = [str(c) if names is None else names[c] for c in range(way)]

    def show(row: int, column: int, picture: torch.Tensor) -> Any:
        axes = figure.add_subplot(grid[row, column])
        pixels = picture.clamp(0, 1).permute(1, 2, 0).numpy()
        if pixels.shape[-1] == 1:
            axes.imshow(1 - pixels[..., 0], cmap="gray", vmin=0, vmax=1)
        else:
            axes.imshow(pixels)
        axes.set_xticks([])
        axes.set_yticks([])
        return axes

    for c in range(way):
        for column, i in enumerate(rows[c]):
            axes = show(c, column, task.support.x[i])
            if column == 0:
                axes.set_ylabel(labels[c], rotation=0, ha="right", va="center", fontsize=8)
            if c == 0 and column == 0:
                axes.set_title("learns from", fontsize=9, loc="left")
        for column, i in enumerate(asked[c]):
            axes = show(c, left + 1 + column, task.query.x[i])
            right_answer = int(predicted[i]) == c
            colour = GREEN if right_answer else RED
            for spine in axes.spines.values():
                spine.set_color(colour)
                spine.set_linewidth(2.2)
            answer = f"{100 * float(probability[i]):.0f} %"
            text = answer if right_answer else f"{labels[int(predicted[i])]} {answer}"
            axes.set_xlabel(text, fontsize=7, color=colour, labelpad=2)
            if c == 0 and column == 0:
                axes.set_title("is asked", fontsize=9, loc="left")
    _save(figure, path)


def reliability(measured: Calibration, path: str | Path) -> None:
    """Accuracy by confidence: on the diagonal, a probability means what it says."""
    figure = _figure(4.2, 3.8)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    used = [i for i, share in enumerate(measured.share) if share > 0]
    x = [measured.confidence[i] for i in used]
    y = [measured.accuracy[i] for i in used]
    axes.scatter(x, y, s=[20 + 900 * measured.share[i] for i in used], color=BLUE, alpha=0.55, linewidth=0)
    axes.plot(x, y, color=BLUE, linewidth=1.2)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy")
    axes.set_title(f"expected calibration error {measured.error:.3f}", loc="left", fontsize=10)
    _clean(axes)
    _save(figure, path)
