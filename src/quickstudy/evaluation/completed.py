"""Pictures completed from a few of their pixels: what was shown, what was told, how sure, what it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from quickstudy.evaluation.style import GREY, INK, figure_of, save
from quickstudy.learners.base import Learner
from quickstudy.tasks.completion import Completion


def completed(learner: Learner, source: Completion, index: int) -> dict[str, Tensor]:
    """One task of a source that asks for every pixel, as pictures `[C, H, W]` by what they show: the pixels
    "shown" (NaN elsewhere), the "mean" told, its "deviation", and the picture as "it was"."""
    task, (channels, height, width) = source.task(index), source.data.image_shape

    def as_picture(values: Tensor) -> Tensor:
        return values.mT.reshape(channels, height, width)

    mean, std = learner.adapt(task.support).gaussian(task.query.x)
    shown = torch.full_like(task.query.y, torch.nan)
    places = (task.query.x[:, None] == task.support.x).all(-1).any(1)
    shown[places] = task.query.y[places]
    found = {"shown": shown, "mean": mean.cpu(), "deviation": std.cpu(), "it was": task.query.y}
    return {name: as_picture(values) for name, values in found.items()}


def completion_picture(
    learner: Learner, sources: Mapping[int, Completion], path: str | Path, pictures: int = 4
) -> None:
    """Draw the same pictures completed from more and more pixels, each beside how sure the learner is.

    Args:
        learner: one that states how sure it is.
        sources: by the number of pixels that are shown; each asks for every pixel.
        path: the PNG to write.
        pictures: how many.
    """
    columns = [(shot, name) for shot in sources for name in ("shown", "mean", "deviation")]
    figure = figure_of(0.85 * (len(columns) + 1) + 0.4, 0.85 * pictures + 0.9)
    figure.suptitle("Completed from some of the pixels", x=0.01, ha="left", fontsize=11, color=INK)
    grid = figure.add_gridspec(pictures, len(columns) + 1)
    for row in range(pictures):
        found = {shot: completed(learner, source, row) for shot, source in sources.items()}
        truth = next(iter(found.values()))["it was"]
        cells = [(f"{shot}" if name == "shown" else name, found[shot][name]) for shot, name in columns]
        for column, (title, picture) in enumerate([*cells, ("it was", truth)]):
            axes = figure.add_subplot(grid[row, column])
            axes.set_facecolor("#c9d4e5")  # where nothing was shown
            axes.imshow(picture.mean(0).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            if row == 0:
                said = f"{title} pixels" if title.isdecimal() else title
                axes.set_title(said, fontsize=8, color=INK if title.isdecimal() else GREY)
    save(figure, path)
