"""Tasks of the classes that a served run has never seen: something to try without drawing."""

from __future__ import annotations

import base64
import io
import logging
import secrets
import threading
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from quickstudy.app.server.limits import Limits
from quickstudy.data import ClassDataset
from quickstudy.data.pictures import inverted, picture
from quickstudy.errors import TaskError, UserError
from quickstudy.evaluation.evaluate import SEED
from quickstudy.outer.config import TrainConfig
from quickstudy.outer.run_folder import RunFolder
from quickstudy.outer.session import load_splits

MANY = 1_000_000
_log = logging.getLogger("quickstudy")


class UnseenTasks:
    """The meta-test tasks of a run; its data are read when the first one is asked for.

    Args:
        run: the run folder.
        data_dir: where data lies.
    """

    def __init__(self, run: RunFolder, data_dir: Path | None = None) -> None:
        self.run, self.config = run, TrainConfig.from_json(run.config, data_dir)
        self.lock = threading.Lock()
        self.found: ClassDataset | None = None

    @property
    def classes(self) -> ClassDataset:
        """The meta-test classes.

        Raises:
            UserError: the data are not here, or have changed.
        """
        with self.lock:
            if self.found is None:
                try:
                    self.found = load_splits(self.config, self.run).test
                except UserError as error:  # it may say where they were, which is no client's business
                    _log.warning("no tasks of %s: %s", self.run.path, error)
                    name = self.run.path.resolve().name
                    raise UserError(f"the data of {name} are not here: its server's log says why") from None
            return self.found

    def task(self, way: int, shot: int, query: int, number: int | None, limits: Limits) -> dict[str, Any]:
        """A task as JSON: named examples and queries, dark on light, as one draws.

        Args:
            way, shot, query: its sizes.
            number: which of them; None for any.

        Raises:
            TaskError: there are not so many classes or examples, or they are more than a client may ask for.
        """
        for count, most, what in (
            (way, limits.classes, "classes"),
            (way * shot, limits.examples, "examples"),
            (way * query, limits.images, "queries"),
        ):
            if count > most:
                raise TaskError(f"{count} {what}: a task may have {most}")
        classes = self.classes
        source = self.config.problem(
            classes, seed=SEED, way=way, shot=shot, query=query, unlabelled=0, distractors=0
        )
        number = secrets.randbelow(MANY) if number is None else number
        task, which = source.task(number), source.draw(np.array([number])).classes[0]
        names = [brief(classes.names[int(c)], int(c), limits.label) for c in which]
        light = self.run.config["pictures"]["polarity"] == "light-on-dark"
        return {
            "number": number,
            "examples": told(task.support.x, task.support.y, names, light),
            "queries": told(task.query.x, task.query.y, names, light),
        }


def brief(name: str, number: int, most: int) -> str:
    """A class's name in so many letters at most; what is cut off is told apart by the class's number.

    >>> brief("teapot", 7, 10), brief("a rather long name", 7, 10)
    ('teapot', 'a rather…7')
    """
    if len(name) <= most:
        return name
    end = f"…{number}"
    return name[: most - len(end)] + end


def told(x: Tensor, y: Tensor, names: list[str], light: bool) -> list[dict[str, str]]:
    """Pictures `[n, C, H, W]`, fractions, and their classes, as a client is told of them."""
    pixels = (x * 255).round().byte().numpy()
    return [
        {"label": names[int(c)], "image": sent(inverted(one) if light else one)}
        for one, c in zip(pixels, y, strict=True)
    ]


def sent(pixels: np.ndarray) -> str:
    """Pixels `[C, H, W]` as a data: URL of a PNG."""
    file = io.BytesIO()
    picture(pixels).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
