"""Pictures of a search: how it went, what each option was worth, what mattered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from quickstudy.errors import UserError
from quickstudy.evaluation.style import BLUE, GREEN, GREY, INK, PERCENT, axes_in, figure_of, save
from quickstudy.evaluation.tuning.space import Choice, Dimension
from quickstudy.evaluation.tuning.trials import Trial, Tuned

COLUMNS = 3
"""Options side by side."""


def draw_search(found: Tuned) -> list[Path]:
    """Draw history.png, options.png and, where enough is known, importance.png into the search's folder.

    Raises:
        UserError: no trial came to a number.

    Example:
        >>> draw_search(found)  # doctest: +SKIP
        [PosixPath('runs/search/history.png'), PosixPath('runs/search/options.png'), …]
    """
    drawn = [found.out / "history.png", found.out / "options.png"]
    search_history(found, drawn[0])
    search_options(found, drawn[1])
    if found.importance:
        drawn.append(found.out / "importance.png")
        search_importance(found, drawn[2])
    return drawn


def search_history(found: Tuned, path: str | Path) -> None:
    """What each trial reached, complete or pruned, and the best so far.

    Args:
        path: the PNG to write.

    Raises:
        UserError: no trial came to a number.
    """
    shown = _valued(found.trials)
    figure = figure_of(6.4, 3.5)
    axes = axes_in(figure, title=f"{found.judged.capitalize()} on meta-validation", xlabel="trial")
    done = [t for t in shown if t.outcome == "complete"]
    if done:
        x = [t.number for t in done] + [max(t.number for t in shown)]
        so_far = np.maximum.accumulate(np.array([t.value for t in done], float))
        so_far = -so_far if found.judged == "mean squared error" else so_far
        axes.step(x, [*so_far, so_far[-1]], where="post", color=BLUE, linewidth=1.7, label="best so far")
    _dots(axes, shown, [t.number for t in shown], found)
    _scale(axes, found)
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axes.margins(y=0.1)
    _legend(figure, axes)
    save(figure, path)


def search_options(found: Tuned, path: str | Path) -> None:
    """What the trials reached by each option that was searched, one below the other where many.

    Raises:
        UserError: no trial came to a number.
    """
    shown, names = _valued(found.trials), list(found.space)
    rows = -(-len(names) // COLUMNS)
    columns = min(COLUMNS, len(names))
    figure = figure_of(3.1 * columns + 0.5, 2.7 * rows + 0.4)
    title = f"{found.judged.capitalize()} on meta-validation by option"
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, color=INK)
    for place, name in enumerate(names, 1):
        axes = axes_in(figure, rows, columns, place, xlabel=name.replace("_", " "))
        x = _scaled(axes, found.space[name], [t.values[name] for t in shown])
        _dots(axes, shown, x, found)
        _scale(axes, found)
        axes.margins(y=0.1)
        if place % columns != 1 and columns > 1:
            axes.tick_params(labelleft=False)
    _legend(figure, axes)
    save(figure, path)


def search_importance(found: Tuned, path: str | Path) -> None:
    """The share of each option in the differences between trials, the greatest on top.

    Raises:
        UserError: it is not known.
    """
    if not found.importance:
        raise UserError("what mattered is not known: too few trials are complete")
    names = list(reversed(found.importance))
    shares = [found.importance[name] for name in names]
    figure = figure_of(5.4, 0.42 * len(names) + 1.1)
    axes = axes_in(figure, title="What mattered", xlabel=f"share in the differences of {found.judged}")
    axes.barh([name.replace("_", " ") for name in names], shares, color=BLUE, height=0.62)
    for row, share in enumerate(shares):
        axes.annotate(
            f"{100 * share:.0f} %",
            (share, row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=INK,
        )
    axes.set(xlim=(0, 1.15 * max(shares)), xticks=[])
    axes.grid(visible=False)
    save(figure, path)


def _valued(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that came to a value."""
    shown = [t for t in trials if t.value is not None and t.outcome in ("complete", "pruned")]
    if not shown:
        raise UserError("there are no trials to draw: none has come to a number")
    return shown


def _scale(axes: Any, found: Tuned) -> None:
    """The axis of what trials are judged by: percents, nats, or errors by their logarithm."""
    if found.judged == "mean squared error":
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        return
    if found.judged == "accuracy":
        axes.yaxis.set_major_formatter(PERCENT)
    axes.yaxis.set_major_locator(MaxNLocator(5))


def _dots(axes: Any, shown: Sequence[Trial], x: Sequence[float], found: Tuned) -> None:
    """A dot for each trial: complete, pruned, the best."""
    at = list(zip(shown, x, strict=True))
    best = found.ranked[0] if found.ranked else None
    for outcome, look in (
        ("complete", {"color": BLUE, "alpha": 0.75}),
        ("pruned", {"facecolor": "white", "edgecolor": GREY}),
    ):
        own = [(place, found.said(t.value)) for t, place in at if t.outcome == outcome and t != best]
        if own:
            axes.scatter(*zip(*own, strict=True), s=26, label=outcome, zorder=3, **look)
    for t, place in at:
        if t == best:
            axes.scatter(
                place, found.said(t.value), s=60, color=GREEN, edgecolor="white", label="best", zorder=4
            )


def _scaled(axes: Any, searched: Dimension, values: Sequence[Any]) -> list[float]:
    """Where values stand on an axis that shows what was searched; choices beside their names, and equal
    values a little apart."""
    if isinstance(searched, Choice):
        names = [name.replace("$", r"\$") for name in str(searched).split(",")]
        axes.set_xticks(range(len(names)), names)
        axes.set_xlim(-0.5, len(names) - 0.5)
        return _apart([searched.values.index(v) for v in values], 0.22)
    low, high = searched.low, searched.high
    if searched.log:
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        margin = (high / low) ** 0.06
        axes.set_xlim(low / margin, high * margin)
        return list(values)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=searched.whole))
    axes.set_xlim(low - 0.06 * (high - low), high + 0.06 * (high - low))
    return _apart(values, 0.022 * (high - low)) if searched.whole else list(values)


def _apart(values: Sequence[float], width: float) -> list[float]:
    """Values moved by up to `width`, each time otherwise, in the order they came.

    >>> [round(x, 2) for x in _apart([1, 1, 2], 0.25)]
    [1.0, 0.81, 2.0]
    """
    seen: dict[float, int] = {}
    moved = []
    for value in values:
        i = seen.get(value, 0)
        seen[value] = i + 1
        moved.append(value + width * ((0.5 + i * 0.618034) % 1 * 2 - 1))
    return moved


def _legend(figure: Any, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower right", ncols=4, frameon=False, fontsize=9, labelcolor=INK
    )
