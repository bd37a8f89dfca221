"""Pictures of a report that are of several runs or many tasks: curves with bands, ways by shots, and the six
curves that were published for Quick, Draw!."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from quickstudy.evaluation.style import BLUE, COLOURS, GREY, INK, PALE, PERCENT, RED, axes_in, figure_of, save

Records = Sequence[Mapping[str, Any]]


def group_curve(runs: Sequence[Records], name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A metric by meta-step of runs that differ in their seed: steps, mean, lowest and highest `[steps]`.

    Only steps that all of them validated at are taken, so that a mean is always of the same runs.

    >>> a = [{"iteration": 1, "val_accuracy": 0.2}, {"iteration": 2, "val_accuracy": 0.4}]
    >>> b = [{"iteration": 1, "val_accuracy": 0.4}]
    >>> [part.tolist() for part in group_curve([a, b], "val_accuracy")]
    [[1], [0.30000000000000004], [0.2], [0.4]]
    """
    found = [{r["iteration"]: r[name] for r in records if r.get(name) is not None} for records in runs]
    steps = sorted(set.intersection(*(set(values) for values in found))) if found else []
    values = np.array([[one[step] for step in steps] for one in found]).reshape(len(found), len(steps))
    if not steps:
        return (np.array([]),) * 4
    return np.array(steps), values.mean(0), values.min(0), values.max(0)


def mean_of(runs: Sequence[Records]) -> list[dict[str, float]]:
    """The records of runs that differ in their seed as those of one run: the mean at each meta-step.

    >>> mean_of([[{"iteration": 1, "val_accuracy": 0.25}], [{"iteration": 1, "val_accuracy": 0.75}]])
    [{'iteration': 1, 'val_accuracy': 0.5}]
    """
    found: dict[int, dict[str, float]] = {}
    for name in ("train_accuracy", "val_accuracy"):
        steps, mean, *_ = group_curve(runs, name)
        for step, value in zip(steps.tolist(), mean.tolist(), strict=True):
            found.setdefault(step, {"iteration": step})[name] = value
    return [found[step] for step in sorted(found)]


def curves(groups: Mapping[str, Sequence[Records]], path: str | Path) -> None:
    """Meta-validation by meta-step, a line a group of runs, and a band from its lowest to its highest seed.

    Args:
        groups: by name the records of each run of a group.
        path: the PNG to write.
    """
    figure = figure_of(9.4, 3.9)
    every = [record for runs in groups.values() for records in runs for record in records]
    kinds = [kind for kind in ("accuracy", "loss") if any(f"val_{kind}" in record for record in every)]
    kinds = kinds or ["loss"]
    for place, kind in enumerate(kinds, 1):
        title = f"{kind.capitalize()} on meta-validation"
        axes = axes_in(figure, 1, len(kinds), place, title=title, xlabel="meta-step")
        for k, (name, runs) in enumerate(groups.items()):
            colour = COLOURS[k % len(COLOURS)]
            steps, mean, low, high = group_curve(runs, f"val_{kind}")
            seeds = f" ({len(runs)} seeds)" if len(runs) > 1 else ""
            few = "o" if len(steps) <= 40 else ""
            style = "-" if k < len(COLOURS) else "--"
            label = f"{name.replace('$', '')}{seeds}"
            axes.plot(steps, mean, style, color=colour, label=label, marker=few, markersize=3, linewidth=1.7)
            axes.fill_between(steps, low, high, color=colour, alpha=0.16, linewidth=0)
        if kind == "accuracy":
            axes.yaxis.set_major_formatter(PERCENT)
        if place == 1:
            axes.legend(frameon=False, fontsize=9, labelcolor=INK)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    save(figure, path)


def heat_map(grid: Mapping[tuple[int, int], tuple[float, float] | str], path: str | Path) -> None:
    """Accuracy by way and shot, with half of its 95 % interval; a dash where there is none.

    Args:
        grid: by (way, shot) accuracy and half the interval, or why there is none.
        path: the PNG to write.
    """
    ways, shots = (sorted({key[i] for key in grid}) for i in (0, 1))
    table = np.full((len(ways), len(shots)), np.nan)
    figure = figure_of(1.25 * len(shots) + 1.2, 0.62 * len(ways) + 1.1)
    axes = figure.add_subplot()
    for (way, shot), cell in grid.items():
        row, column = ways.index(way), shots.index(shot)
        text = "–" if isinstance(cell, str) else f"{100 * cell[0]:.1f} ± {100 * cell[1]:.1f}"
        if not isinstance(cell, str):
            table[row, column] = cell[0]
        dark = table[row, column] > 0.6
        axes.text(column, row, text, ha="center", va="center", fontsize=9.5, color="white" if dark else INK)
    axes.imshow(table, cmap="Blues", vmin=0.0, vmax=1.1, aspect="auto")
    axes.set_xticks(range(len(shots)), [f"{shot}-shot" for shot in shots])
    axes.set_yticks(range(len(ways)), [f"{way}-way" for way in ways])
    axes.set_xticks(np.arange(len(shots) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(ways) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0, colors=INK, labelsize=9)
    axes.spines[:].set_color(PALE)
    figure.suptitle("Accuracy, %, by way and shot", x=0.01, ha="left", fontsize=11, color=INK)
    save(figure, path)


EPOCH = 100
"""Meta-steps of an epoch there."""


def published() -> dict[str, Any]:
    """The curves of the fastforwardlabs learning-to-learn report on Quick, Draw!, transductive, 50 epochs of
    100 meta-steps: where they come from, and by way, shot and drawings a class accuracy by epoch.

    >>> first = published()["runs"][0]
    >>> first["way"], first["shot"], first["samples_per_class"], len(first["val_accuracy"])
    (5, 1, 100, 50)
    """
    place = files("quickstudy") / "evaluation" / "reports" / "fastforwardlabs_quickdraw.json"
    found: dict[str, Any] = json.loads(place.read_bytes())
    return found


def apart(ends: Sequence[tuple[float, int]], gap: float) -> list[tuple[float, int]]:
    """Where to write what stands at these heights, so that no two are nearer than a gap.

    >>> apart([(0.5, 1), (0.52, 5), (0.8, 10)], 0.1)
    [(0.5, 1), (0.6, 5), (0.8, 10)]
    """
    found: list[tuple[float, int]] = []
    for at, what in sorted(ends):
        found.append((max(at, found[-1][0] + gap) if found else at, what))
    return found


def six_curves(ours: Mapping[int, Records], way: int, samples: int, path: str | Path) -> None:
    """Training and validation accuracy by epoch at 1, 5 and 10 shots, as published, grey, and of runs here.

    Args:
        ours: by shots the records of a run; of shots that are missing only what was published is drawn.
        way: 5 or 10.
        samples: drawings a class, 20 or 100, of what was published.
        path: the PNG to write.
    """
    figure = figure_of(9.4, 3.9)
    told = [r for r in published()["runs"] if (r["way"], r["samples_per_class"]) == (way, samples)]
    for place, (part, words) in enumerate((("train", "meta-train"), ("val", "meta-validation")), 1):
        title = f"{way}-way, {samples} drawings a class: {words} classes"
        axes = axes_in(figure, 1, 2, place, title=title, xlabel=f"epochs of {EPOCH} meta-steps")
        for k, theirs in enumerate(told):
            y = theirs[f"{part}_accuracy"]
            style = ("-", "--", ":")[k]
            axes.plot(range(1, len(y) + 1), y, style, color=GREY, linewidth=1.4)
            records = ours.get(theirs["shot"], [])
            here = [
                (r["iteration"] / EPOCH, r[f"{part}_accuracy"]) for r in records if f"{part}_accuracy" in r
            ]
            if here:
                colour = (BLUE, RED, COLOURS[2])[k]
                label = f"{theirs['shot']}-shot, here"
                axes.plot(*zip(*here, strict=True), style, color=colour, linewidth=1.9, label=label)
        axes.plot([], [], color=GREY, label="fastforwardlabs, published")
        low, high = axes.get_ylim()
        ends = [(theirs[f"{part}_accuracy"][-1], theirs["shot"]) for theirs in told]
        for at, shot in apart(ends, (high - low) / 22):
            axes.annotate(f"{shot}-shot", (50.6, at), color=GREY, fontsize=8, va="center")
        axes.yaxis.set_major_formatter(PERCENT)
        axes.set_xlim(0, 56)
        axes.legend(frameon=False, fontsize=8.5, labelcolor=INK, loc="lower right")
    save(figure, path)
