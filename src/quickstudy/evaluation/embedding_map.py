"""A map of one task: where its examples lie in the space of a learned embedding."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from quickstudy.errors import UserError
from quickstudy.evaluation.style import COLOURS, GREY, INK, axes_in, figure_of, save
from quickstudy.learners.base import Learner
from quickstudy.learners.embedding import EmbeddingLearner
from quickstudy.outer.device import suited
from quickstudy.tasks.task import Task

FEW = 10
"""Classes up to which a legend is of the usual size."""


class Map(NamedTuple):
    """Support and query examples on a plane, `[n, 2]` and `[q, 2]`, how much of the variance it shows, and
    the unlabelled examples `[u, 2]` of a learner that uses them."""

    support: Tensor
    query: Tensor
    shown: float
    unlabelled: Tensor | None = None


def principal_plane(z: Tensor) -> tuple[Callable[[Tensor], Tensor], float]:
    """The plane on which features `[n, D]` vary most (PCA): a function from features `[m, D]` to their places
    `[m, 2]` on it, and the share of the variance that it shows.

    An axis on which they do not vary is zero for all. Each points to where its largest coefficient is
    positive, so that features that hardly change are drawn where they were.

    >>> place, shown = principal_plane(torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]))
    >>> place(torch.tensor([[0.5, 3.0, 0.0]])).tolist(), round(shown, 6)
    ([[0.5, 0.0]], 1.0)
    """
    mean = z.double().mean(0)
    _, s, v = torch.linalg.svd(z.double() - mean, full_matrices=False)
    v = v[:2] * (s[:2] > 1e-6 * s[:1])[:, None]
    v = v * v.gather(1, v.abs().argmax(1, keepdim=True)).sign()
    v = torch.cat([v, v.new_zeros(2, v.shape[1])])[:2]  # [2, D]
    variance = s.square()
    return lambda x: (x.double() - mean) @ v.T, float(variance[:2].sum() / variance.sum().clamp(min=1e-30))


def mapped(learner: Learner, task: Task) -> Map:
    """Where a task's examples lie among the features that the learner's body gives them, before what its
    method makes of these (context, a distance of its own).

    Raises:
        UserError: the learner embeds nothing.
    """
    if not isinstance(learner, EmbeddingLearner):
        raise UserError(f"{type(learner).__name__} embeds nothing that could be drawn")
    task = suited(task, learner)
    with learner.in_use(), torch.no_grad():
        z, embed, _ = learner.embedded(task.support)
        z, q = z.cpu(), embed(task.query.x).cpu()
        extra = task.support.unlabelled if learner.uses_unlabelled else None
        u = None if extra is None else embed(extra).cpu()
    place, shown = principal_plane(torch.cat([z, q]))
    return Map(place(z), place(q), shown, None if u is None else place(u))


def map_picture(found: Map, task: Task, path: str | Path, names: Sequence[str] | None = None) -> None:
    """Draw the map: large marks for support examples, small ones for queries, a colour a class; hollow ones
    for unlabelled examples.

    Args:
        found: as `mapped` finds it.
        task: the task that it is of.
        path: the PNG to write.
        names: class names, by label.
    """
    way = task.support.way or 1
    names = [f"class {c}" for c in range(way)] if names is None else names
    brief = [textwrap.shorten(name, 28, placeholder="…") if len(name) > 28 else name for name in names]
    figure = figure_of(6.2, 4.4)
    title = f"One task in the embedding ({100 * found.shown:.0f} % of the variance)"
    axes = axes_in(figure, title=title)
    axes.grid(False)
    axes.spines["bottom"].set_visible(False)
    kinds = "large: labelled examples, small: queries"
    kinds += "" if found.unlabelled is None else ", hollow: unlabelled examples"
    axes.set(xticks=[], yticks=[], xlabel=kinds)
    if found.unlabelled is not None:
        axes.scatter(*found.unlabelled.T.numpy(), s=30, facecolors="none", edgecolors=GREY, linewidths=1)
    for c in range(way):
        colour = COLOURS[c % len(COLOURS)]
        marker = "osD^vP*X"[(c // len(COLOURS)) % 8]
        q, z = found.query[(task.query.y == c).cpu()], found.support[(task.support.y == c).cpu()]
        axes.scatter(*q.T.numpy(), s=16, color=colour, alpha=0.55, linewidths=0, marker=marker)
        style = {"color": colour, "edgecolors": INK, "linewidths": 1.2, "marker": marker}
        axes.scatter(*z.T.numpy(), s=90, label=brief[c], **style)
    axes.set_aspect("equal", adjustable="datalim")
    style = {"frameon": False, "labelcolor": INK, "loc": "center left", "bbox_to_anchor": (1, 0.5)}
    axes.legend(fontsize=9 if way <= FEW else 6.5, markerscale=1 if way <= FEW else 0.6, **style)
    save(figure, path)
