"""Pictures of a run: the training curve, a task with its predictions, calibration, the worst confusions."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from quickstudy.data.polarity import polarity
from quickstudy.errors import UserError
from quickstudy.evaluation.presentations import Presentations
from quickstudy.evaluation.scores import Calibration, Confusion
from quickstudy.evaluation.style import BLUE, GREEN, GREY, INK, PALE, PERCENT, RED, axes_in, figure_of, save
from quickstudy.learners.predictor import Predictor
from quickstudy.tasks.task import Task, as_float

CURVES = {"accuracy": "Accuracy", "loss": "Loss", "log_likelihood": "Log-likelihood, nats a point"}
"""What a training curve shows, and its titles."""


def training_curve(
    records: Sequence[Mapping[str, Any]],
    path: str | Path,
    *,
    training: str = "meta-training",
    validation: str = "meta-validation",
) -> None:
    """Accuracy, loss and log-likelihood by meta-step, whichever there are: training, and meta-validation with
    its 95 % band and its best.

    Args:
        records: the lines of metrics.jsonl; a value of None leaves a gap. Where training knows a lower bound
            of the log-likelihood only, that is drawn for it.
        path: the PNG to write.
        training, validation: what the two were measured on.

    Raises:
        UserError: there are no records.
    """
    kinds = [k for k in CURVES if any(f"train_{k}" in r or f"val_{k}" in r for r in records)]
    if not kinds:
        raise UserError("there are no records to draw a curve of: the run has not got to a validation")
    titles = {**CURVES, "loss": "Mean squared error"} if "log_likelihood" in kinds else CURVES
    figure = figure_of(4.6 * len(kinds) + 0.4, 3.5)
    x = np.array([r["iteration"] for r in records])

    def column(name: str) -> np.ndarray:
        return np.array([math.nan if r.get(name) is None else r[name] for r in records])

    for place, kind in enumerate(kinds, 1):
        axes = axes_in(figure, 1, len(kinds), place, title=titles[kind], xlabel="meta-step")
        train, val, what = column(f"train_{kind}"), column(f"val_{kind}"), training
        if kind == kinds[-1] and kind != "accuracy" and "train_bound" in records[-1]:
            train, what = column("train_bound") * (-1 if kind == "loss" else 1), f"{training}, its bound"
        drawn = []
        for y, colour, label in ((train, GREY, what), (val, BLUE, validation)):
            if np.isfinite(y).any():
                few = "o" if len(x) <= 40 else ""
                drawn += axes.plot(x, y, color=colour, label=label, marker=few, markersize=3, linewidth=1.7)
        if kind == "accuracy":
            axes.yaxis.set_major_formatter(PERCENT)
        if kind != "loss" and np.isfinite(val).any():
            band, best = column(f"val_{kind}_ci95"), int(np.nanargmax(val))
            axes.fill_between(x, val - band, val + band, color=BLUE, alpha=0.16, linewidth=0)
            axes.plot(x[best], val[best], "o", color=BLUE, markersize=7, markeredgecolor="white")
            text = "best " + (f"{100 * val[best]:.1f} %" if kind == "accuracy" else f"{val[best]:.2f}")
            left = x[best] > (x[0] + x[-1]) / 2
            axes.annotate(
                text,
                (x[best], val[best]),
                xytext=(-4 if left else 4, -14),
                textcoords="offset points",
                ha="right" if left else "left",
                color=BLUE,
                fontsize=9,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
            )
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.legend(handles=drawn, frameon=False, fontsize=9, labelcolor=INK)
    save(figure, path)


MOST_ROWS = 10
"""Classes of a task that are drawn; of more the first."""


def task_picture(
    task: Task,
    answers: Predictor | Tensor,
    path: str | Path,
    names: Sequence[str] | None = None,
    queries: int = 6,
) -> None:
    """A task as a table of pictures: a row a class, its support examples, then queries with their answers.

    Args:
        task: one task over pictures.
        answers: what a learner made of its support set; or class probabilities `[q, N]` of its queries.
        path: the PNG to write.
        names: class names, by label.
        queries: how many queries a class to show.

    Raises:
        UserError: the examples are not pictures.
    """
    if task.support.x.ndim != 4 or task.support.way is None:
        raise UserError("a task can only be drawn where examples are pictures with class labels")
    way = min(task.support.way, MOST_ROWS)
    chances = answers.probabilities(task.query.x) if isinstance(answers, Predictor) else answers
    probability, predicted = (v.tolist() for v in chances.max(-1))
    support_y, query_y = task.support.y.tolist(), task.query.y.tolist()
    learnt = [[i for i, y in enumerate(support_y) if y == c][:5] for c in range(way)]
    asked = [[i for i, y in enumerate(query_y) if y == c][:queries] for c in range(way)]
    left, right = max(map(len, learnt)), max(map(len, asked))
    names = [f"class {c}" for c in range(task.support.way)] if names is None else names
    labels = [_lines(name) for name in names]

    def answer(i: int) -> str:
        """The probability, after the wrong class's name where it is one."""
        wrong = "" if predicted[i] == query_y[i] else f"{_lines(_brief(names)[predicted[i]])}\n"
        return f"{wrong}{100 * probability[i]:.0f} %"

    lines = 1 + max(answer(i).count("\n") for row in asked for i in row)
    invert = polarity(task.support.x) == "light-on-dark"  # ink is shown dark on paper

    figure = figure_of(1.0 * (left + right) + 1.9, (1.05 + 0.13 * lines) * way + 0.7)
    correct = sum(p == y for p, y in zip(predicted, query_y, strict=True))
    shown = sum(map(len, asked))
    some = (
        f" ({shown} shown{f', of {way} classes' * (way < task.support.way)})" if shown < len(query_y) else ""
    )
    title = f"{correct} of {len(query_y)} queries answered right{some}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, color=INK)
    grid = figure.add_gridspec(way, left + right + 1, width_ratios=[1] * left + [0.3] + [1] * right)

    def show(row: int, column: int, picture: Tensor, colour: str) -> Any:
        axes = figure.add_subplot(grid[row, column])
        pixels = as_float(picture).clamp(0, 1).permute(1, 2, 0).numpy()
        if pixels.shape[-1] != 3:
            pixels = pixels.mean(-1, keepdims=True).repeat(3, -1)
            pixels = 1 - pixels if invert else pixels
        axes.imshow(pixels, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(color=colour, linewidth=1 if colour == PALE else 2.4)
        return axes

    for c in range(way):
        for column, i in enumerate(learnt[c]):
            axes = show(c, column, task.support.x[i], PALE)
            if column == 0:
                axes.set_ylabel(labels[c], rotation=0, ha="right", va="center", fontsize=9, color=INK)
                if c == 0:
                    axes.set_title("learns from", fontsize=9, loc="left", color=GREY)
        for column, i in enumerate(asked[c]):
            hit = predicted[i] == c
            axes = show(c, left + 1 + column, task.query.x[i], GREEN if hit else RED)
            axes.set_xlabel(answer(i), fontsize=7.5, color=GREEN if hit else RED, labelpad=3)
            if c == 0 and column == 0:
                axes.set_title("is asked", fontsize=9, loc="left", color=GREY)
    save(figure, path)


def reliability(measured: Calibration, path: str | Path) -> None:
    """Accuracy by confidence, and how often each confidence occurs: on the diagonal, a probability means
    what it says.

    Args:
        measured: `Evaluation.calibration`.
        path: the PNG to write.
    """
    bins = len(measured.share)
    edges, width = np.arange(bins) / bins, 1 / bins
    accuracy, confidence, share = (
        np.array(v) for v in (measured.accuracy, measured.confidence, measured.share)
    )
    used = share > 0
    x, y = confidence[used], accuracy[used]
    figure = figure_of(4.4, 5.0)
    grid = figure.add_gridspec(2, 1, height_ratios=[3.4, 1])
    axes = axes_in(
        figure, grid[0], title=f"Expected calibration error {measured.error:.3f}", ylabel="accuracy"
    )
    axes.bar(edges[used], y, width, align="edge", color=BLUE, alpha=0.22, edgecolor="white")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    axes.vlines(x, x, y, color=RED, linewidth=1.8, label="gap")  # from the diagonal to what was reached
    axes.plot(x, y, "o", color=BLUE, markersize=5.5, label="mean of a bin", clip_on=False)
    axes.set(xlim=(0, 1), ylim=(0, 1), xticklabels=[])
    axes.legend(frameon=False, fontsize=9, loc="upper left", labelcolor=INK)
    below = axes_in(figure, grid[1], xlabel="confidence", ylabel="queries")
    below.bar(edges, share, width, align="edge", color=GREY, edgecolor="white")
    below.set(xlim=(0, 1))
    below.yaxis.set_major_locator(MaxNLocator(3, prune="lower"))
    below.yaxis.set_major_formatter(PERCENT)
    save(figure, path)


def presentation_curve(measured: Presentations, path: str | Path, chance: float) -> None:
    """Accuracy by presentation of a class in a stream, with its 95 % band and the level of chance.

    Args:
        measured: what `by_presentation` returned.
        path: the PNG to write.
        chance: the accuracy of guessing.
    """
    accuracy, width = np.array(measured.accuracy), np.array(measured.ci95)
    x = np.arange(1, len(accuracy) + 1)
    figure = figure_of(5.0, 3.5)
    axes = axes_in(
        figure, title=f"{measured.tasks} streams", xlabel="presentation of a class", ylabel="accuracy"
    )
    axes.axhline(chance, color=GREY, linestyle="--", linewidth=1, label="chance")
    axes.plot(x, accuracy, "o-", color=BLUE, markersize=5, linewidth=1.7, label="said before the label")
    axes.fill_between(x, accuracy - width, accuracy + width, color=BLUE, alpha=0.16, linewidth=0)
    axes.set(ylim=(0, 1.02), xlim=(0.5, len(x) + 0.5))
    axes.yaxis.set_major_formatter(PERCENT)
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    low = len(accuracy) and accuracy[len(accuracy) // 2 :].mean() > 0.5  # where the curve is not
    axes.legend(frameon=False, fontsize=9, loc="lower right" if low else "upper left", labelcolor=INK)
    save(figure, path)


def confusion_matrix(counts: Confusion, path: str | Path, classes: int = 20) -> None:
    """The classes most often taken for each other: in a row, what one class's queries were taken for.

    Args:
        counts: `Evaluation.confusion`.
        path: the PNG to write.
        classes: how many to show.

    Raises:
        UserError: there are no counts.
    """
    if not counts:
        raise UserError("there are no confusions to draw: this was not measured on classes of a data set")
    shown = most_confused(counts, classes)
    totals = np.array([max(1, sum(counts.get(t, {}).values())) for t in shown])
    table = np.array([[counts.get(t, {}).get(p, 0) for p in shown] for t in shown]) / totals[:, None]
    n = len(shown)
    figure = figure_of(0.42 * n + 2.6, 0.42 * n + 2.2)
    axes = figure.add_subplot()
    right = np.eye(n, dtype=bool)
    axes.imshow(np.where(right | (table == 0), np.nan, table), cmap="Reds", vmin=-0.15, vmax=1)
    axes.imshow(np.where(right & (table > 0), table, np.nan), cmap="Blues", vmin=-0.15, vmax=1)
    for row, column in zip(*np.nonzero(table), strict=True):
        value = table[row, column]
        colour = "white" if value > 0.45 else INK
        axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(np.arange(n + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(n + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=PALE)
    labels = [_elided(name) for name in shown]
    axes.set_xticks(range(n), labels, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(range(n), labels, fontsize=8)
    axes.set_xlabel("taken for", color=GREY)
    axes.set_ylabel("true class", color=GREY)
    figure.suptitle("Most confused, % of queries", x=0.01, ha="left", fontsize=11, color=INK)
    axes.tick_params(which="both", length=0, colors=INK)
    axes.spines[:].set_color(PALE)
    save(figure, path)


def most_confused(counts: Confusion, classes: int) -> list[str]:
    """The classes of the most frequent confusions, those of one confusion side by side.

    >>> most_confused({"a": {"a": 9, "b": 1}, "b": {"b": 5}, "c": {"d": 4, "a": 2}}, 3)
    ['c', 'd', 'a']
    """
    wrong = [(n, t, p) for t, row in counts.items() for p, n in row.items() if t != p]
    pairs = sorted(wrong, key=lambda pair: -pair[0])
    named = [name for _, t, p in pairs for name in (t, p)] + sorted(counts)
    return list(dict.fromkeys(named))[:classes]


def _elided(name: str, letters: int = 34) -> str:
    """A class name without its middle where it is long: names of a folder tree differ at the end."""
    name = name if len(name) <= letters else f"{name[: letters // 2 - 1]}…{name[-letters // 2 :]}"
    return name.replace("$", r"\$")  # no formula


def _lines(name: str) -> str:
    """A class name in lines as wide as a picture, broken after the marks that names of files have."""
    marked = re.sub(r"(?<=[_/-])(?=.)", "\0 ", _elided(name))
    lines = textwrap.wrap(marked, 15, break_on_hyphens=False)
    return "\n".join(lines).replace("\0 ", "").replace("\0", "") or name


def _brief(names: Sequence[str]) -> list[str]:
    """Only the last parts of paths, where these differ."""
    last = [name.rsplit("/", 1)[-1] for name in names]
    return last if len(set(last)) == len(names) else list(names)
