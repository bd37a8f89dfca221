"""The pictures of docs/concepts.md, from Omniglot, from sinusoids and from results/*.json.

QUICKSTUDY_DATA=DIR python docs/figures/draw.py            all of them, some two minutes on one core
QUICKSTUDY_DATA=DIR python docs/figures/draw.py task loops these only
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

import quickstudy as qs
from quickstudy.evaluation.embedding_map import mapped
from quickstudy.evaluation.fit import fits
from quickstudy.evaluation.style import (
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    INK,
    PALE,
    PERCENT,
    RED,
    axes_in,
    figure_of,
    save,
)
from quickstudy.outer.measure import measure
from quickstudy.outer.progress import Bar

HERE = Path(__file__).parent
RESULTS = HERE.parents[1] / "results"
PARTS = ((BLUE, "meta-train", 8), (GREEN, "meta-validation", 3), (RED, "meta-test", 4))


def bare(figure: Any, place: Any) -> Any:
    """Axes for a drawing, without marks."""
    axes = figure.add_subplot(place)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return axes


def tile(axes: Any, picture: torch.Tensor, colour: str, below: str = "") -> None:
    """A character, dark on light, in a frame of a colour."""
    axes.imshow(255 - picture[0].numpy(), cmap="gray", vmin=0, vmax=255)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color=colour, linewidth=1.8)
    if below:
        axes.set_xlabel(below, fontsize=10, color=colour, labelpad=3)


def split() -> None:
    """Characters of the three parts; every class is in one only."""
    figure, columns_in_all = figure_of(9.0, 1.95), sum(n for *_, n in PARTS) + 2
    figure.set_layout_engine("none")  # tiles stay side by side, whatever is written over them
    edges = {"left": 0.01, "right": 0.99, "bottom": 0.02, "top": 0.86}
    grid = figure.add_gridspec(3, columns_in_all, wspace=0.12, hspace=0.12, **edges)
    first = 0
    for part, (colour, name, columns) in zip(qs.data.omniglot().split("vinyals"), PARTS, strict=True):
        chosen = torch.linspace(0, len(part) - 1, 3 * columns).long().tolist()
        for i, c in enumerate(chosen):
            axes = figure.add_subplot(grid[i % 3, first + i // 3])
            tile(axes, part.examples(c)[0], colour)
            if i == 0:
                axes.set_title(f"{name}: {len(part):,}", loc="left", fontsize=10, color=colour)
        first += columns + 1
    save(figure, HERE / "split.png")


def task() -> None:
    """A 5-way 1-shot task: what is shown, and what is asked."""
    part = qs.data.omniglot().split("vinyals").test
    one = qs.ClassTasks(part, way=5, shot=1, query=3, seed=4).task(1)
    x, q = ((255 * v).byte() for v in (one.support.x, one.query.x))
    figure = figure_of(9.0, 2.85)
    figure.set_layout_engine("none")
    edges = {"left": 0.01, "right": 0.99, "bottom": 0.02, "top": 0.88}
    ratios = [1] * 5 + [0.6] + [1] * 5
    grid = figure.add_gridspec(3, 11, width_ratios=ratios, wspace=0.12, hspace=0.12, **edges)
    for i in range(5):
        which = int((one.support.y == i).nonzero()[0])
        axes = figure.add_subplot(grid[1, i])
        tile(axes, x[which], COLOURS[i], f"class {i}")
        if i == 0:
            axes.set_title("support set: 5 ways, 1 shot", loc="left", fontsize=11, color=INK, pad=10)
    generator = torch.Generator().manual_seed(0)
    for place, which in enumerate(torch.randperm(len(q), generator=generator)[:15].tolist()):
        axes = figure.add_subplot(grid[place // 5, 6 + place % 5])
        tile(axes, q[which], GREY)
        if place == 0:
            axes.set_title("query set: which class is each?", loc="left", fontsize=11, color=INK, pad=10)
    save(figure, HERE / "task.png")


def box(axes: Any, x: float, y: float, width: float, text: str, colour: str, height: float = 0.62) -> None:
    """A word in a box around a point."""
    style = {"boxstyle": "round,pad=0.02,rounding_size=0.1", "facecolor": "white", "edgecolor": colour}
    corner = (x - width / 2, y - height / 2)
    axes.add_patch(FancyBboxPatch(corner, width, height, linewidth=1.6, **style))
    axes.text(x, y, text, ha="center", va="center", fontsize=10, color=INK, linespacing=1.25)


def arrow(axes: Any, begin: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    """From one box to another."""
    style = {"arrowstyle": "-|>", "mutation_scale": 13}
    axes.add_patch(FancyArrowPatch(begin, end, color=colour, linewidth=1.6, **style))


def loops() -> None:
    """The inner loop within the outer one."""
    figure = figure_of(9.0, 3.3)
    axes = bare(figure, 111)
    axes.set(xlim=(0.1, 9.95), ylim=(0.15, 3.95))
    frame = {"boxstyle": "round,pad=0,rounding_size=0.15", "edgecolor": PALE, "linewidth": 1.2}
    axes.add_patch(FancyBboxPatch((2.35, 1.2), 4.75, 2.35, facecolor="#f6f8fb", **frame))
    axes.text(2.4, 3.68, "inner loop: one task, by its support set alone", fontsize=10, color=BLUE)
    box(axes, 1.0, 2.4, 1.5, "meta-\nparameters\nω", RED, 1.2)
    box(axes, 3.5, 2.9, 1.8, "support set", BLUE)
    box(axes, 3.5, 1.85, 1.8, "learner", BLUE)
    box(axes, 6.0, 1.85, 1.5, "predictor", BLUE)
    box(axes, 8.7, 2.9, 1.7, "query set", GREEN)
    box(axes, 8.7, 1.85, 1.7, "query loss", GREEN)
    arrow(axes, (1.8, 2.2), (2.53, 1.9), RED)
    arrow(axes, (3.5, 2.55), (3.5, 2.2), BLUE)
    arrow(axes, (4.45, 1.85), (5.2, 1.85), BLUE)
    axes.text(4.83, 1.97, "adapt", ha="center", fontsize=9, color=BLUE)
    arrow(axes, (6.8, 1.85), (7.8, 1.85), GREEN)
    arrow(axes, (8.7, 2.55), (8.7, 2.2), GREEN)
    axes.plot([8.7, 8.7, 1.0], [1.5, 0.72, 0.72], color=RED, linewidth=1.6, solid_capstyle="round")
    arrow(axes, (1.0, 0.7), (1.0, 1.75), RED)
    said = "outer loop: the mean over many tasks, its gradient by ω, a step of the meta-optimiser"
    axes.text(4.8, 0.32, said, ha="center", fontsize=10, color=RED)
    save(figure, HERE / "loops.png")


def trained(learner: qs.Learner, source: Any, what: str, iterations: int, **options: Any) -> qs.Learner:
    """The learner after so many meta-steps."""
    qs.meta_train(learner, source, iterations=iterations, progress=Bar(what), **options)
    return learner


def prototypes() -> qs.Learner:
    """Prototypical networks on Omniglot, small and brief."""
    torch.manual_seed(0)
    source = qs.tasks(qs.data.omniglot().split("vinyals").train, way=20, shot=1, query=5)
    net = qs.ProtoNet(qs.nets.conv4(channels=16))
    return trained(net, source, "prototypes on Omniglot", 400, meta_batch=1, outer_lr=3e-3, schedule="cosine")


def families() -> None:
    """One method of each family: a task and what it makes of it."""
    torch.manual_seed(0)
    waves = qs.Sinusoids(shot=5, query=20)
    maml = qs.MAML(qs.nets.mlp(1, (40, 40)), way=1, inner_lr=0.01, steps=5)
    trained(maml, waves, "MAML on sinusoids", 3000)
    anp = qs.ANP(qs.nets.mlp(1, (64, 64)), way=1)
    trained(anp, waves, "attentive neural processes on sinusoids", 3000)
    figure = figure_of(10.2, 3.5)
    grid = figure.add_gridspec(1, 3)
    wave = qs.Sinusoids(shot=5, query=100, seed=9).task(2)
    order = wave.query.x[:, 0].argsort()

    def examples(axes: Any) -> None:
        axes.plot(wave.query.x[order, 0], wave.query.y[order, 0], ":", color=GREY, label="the function")
        axes.plot(wave.support.x[:, 0], wave.support.y[:, 0], "o", color=INK, label="its examples", zorder=3)
        axes.set_ylim(-7.6, 6)
        axes.legend(frameon=False, fontsize=8, labelcolor=INK, ncols=2, loc="lower center")

    axes = axes_in(figure, grid[0], title="A learned start: MAML")
    x, found = fits(maml, wave, [0, 1, 5])
    for colour, (label, fit) in zip(("#c3d3e6", "#7da3cd", BLUE), found.items(), strict=True):
        axes.plot(x[:, 0], fit.mean[:, 0], color=colour, label=label, linewidth=2)
    examples(axes)

    axes = axes_in(figure, grid[1], title="A learned metric: ProtoNet")
    axes.grid(False)
    axes.set(xticks=[], yticks=[])
    learner = prototypes()
    one = qs.ClassTasks(qs.data.omniglot().split("vinyals").test, way=5, shot=1, query=10, seed=4).task(1)
    plane = mapped(learner, one)
    for c in range(5):
        z, q = plane.support[one.support.y == c], plane.query[one.query.y == c]
        axes.scatter(*q.T, s=14, color=COLOURS[c], alpha=0.6, linewidths=0)
        axes.scatter(*z.T, s=90, color=COLOURS[c], edgecolors=INK, linewidths=1.2)
    axes.scatter([], [], s=90, color="white", edgecolors=INK, label="prototype")
    axes.scatter([], [], s=14, color=GREY, label="query")
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, ncols=2, loc="lower center")
    axes.margins(y=0.2)

    axes = axes_in(figure, grid[2], title="A black box: ANP")
    x, found = fits(anp, wave)
    ((_, fit),) = found.items()
    assert fit.std is not None
    mean, band = fit.mean[:, 0], 2 * fit.std[:, 0]
    axes.fill_between(x[:, 0], mean - band, mean + band, color=BLUE, alpha=0.15, linewidth=0)
    axes.plot(x[:, 0], mean, color=BLUE, linewidth=2, label="mean ± 2 σ")
    examples(axes)
    save(figure, HERE / "families.png")


def interval() -> None:
    """Accuracies of many tasks, and how the mean's interval narrows."""
    source = qs.tasks(qs.data.omniglot().split("vinyals").test, way=5, shot=1, seed=2)
    values = measure(prototypes(), source, 1000).values["accuracy"].double()
    figure = figure_of(9.0, 3.0)
    axes = axes_in(
        figure, 121, title="1,000 tasks of unseen classes", xlabel="accuracy of a task", ylabel="tasks"
    )
    axes.hist(values, bins=[(i - 0.5) / 75 for i in range(30, 77)], color=BLUE)
    axes.xaxis.set_major_formatter(PERCENT)
    n = torch.arange(10, len(values) + 1)
    mean = values.cumsum(0)[9:] / n
    half = torch.stack([1.96 * values[:k].std() / k**0.5 for k in n.tolist()])
    axes = axes_in(figure, 122, title="their mean, and its 95 % interval", xlabel="tasks measured")
    axes.fill_between(n, mean - half, mean + half, color=BLUE, alpha=0.18, linewidth=0)
    axes.plot(n, mean, color=BLUE)
    said = f"{100 * float(mean[-1]):.1f} ± {100 * float(half[-1]):.1f} %"
    axes.annotate(said, (1000, float(mean[-1])), (620, float(mean[-1]) + 0.022), color=INK, fontsize=10)
    axes.set_ylim(float(mean[-1]) - 0.05, float(mean[-1]) + 0.05)
    axes.yaxis.set_major_formatter(PERCENT)
    save(figure, HERE / "interval.png")


def floors() -> None:
    """Two results beside their floors."""
    figure = figure_of(9.0, 3.0)
    for place, (name, title) in enumerate(
        (("omniglot-protonet", "Omniglot, ProtoNet"), ("quickdraw-maml", "Quick, Draw!, MAML"))
    ):
        told = json.loads((RESULTS / f"{name}.json").read_text())
        first = told["floors"][0]
        same = {k: first[k] for k in ("way", "shot", "query")}
        (ours, *_) = [r for r in told["results"] if {k: r[k] for k in same} == same]
        rows = [*told["floors"], {**ours, "name": told["config"]["learner"]}]
        axes = axes_in(figure, 1, 2, place + 1, title=f"{title}, {same['way']}-way {same['shot']}-shot")
        axes.grid(False)
        colours = [*("#c9d0d8" for _ in told["floors"]), BLUE]
        values, halves = ([row[k] for row in rows] for k in ("accuracy", "ci95"))
        axes.barh([r["name"] for r in rows], values, xerr=halves, color=colours, ecolor=INK, height=0.66)
        for i, value in enumerate(values):
            colour = "white" if i == len(rows) - 1 else INK
            axes.text(0.015, i, f"{100 * value:.1f} %", va="center", fontsize=8.5, color=colour)
        axes.axvline(1 / same["way"], color=GREY, linestyle=":")
        axes.text(1 / same["way"] + 0.01, -0.72, "chance", fontsize=8, color=GREY)
        axes.set_ylim(-0.85, len(rows) - 0.5)
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(PERCENT)
    save(figure, HERE / "floors.png")


FIGURES: dict[str, Callable[[], None]] = {
    f.__name__: f for f in (split, task, loops, families, interval, floors)
}

if __name__ == "__main__":
    options = argparse.ArgumentParser(description="The pictures of docs/concepts.md.")
    options.add_argument("names", nargs="*", metavar="NAME", help="by default all")
    for name in options.parse_args().names or FIGURES:
        FIGURES[name]()
