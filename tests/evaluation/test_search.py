"""The best setting is found, set, and chosen on the tasks that are given."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import UserError
from quickstudy.evaluation import choose_settings
from quickstudy.learners import CONTROLS, LEARNERS, Learner, build
from quickstudy.learners.predictor import Predictor
from quickstudy.nets import conv4
from quickstudy.outer.measure import measure
from quickstudy.tasks import ClassTasks, Support, Task
from quickstudy.tasks.regression import Lines


class Constant(Learner):
    """Always answers `level`: the error is known."""

    def __init__(self, level: float, levels: tuple[float, ...]) -> None:
        super().__init__()
        self.level, self.levels = level, levels

    def learn(self, support: Support) -> Predictor:
        if self.level == 13:
            raise RuntimeError("unlucky")
        return Predictor(lambda x: torch.full((len(x), 1), self.level), None)

    def candidates(self) -> list[dict[str, Any]]:
        return [{"level": v} for v in self.levels]


def mean_square(level: float) -> float:
    return float(((Lines(seed=4).batch(np.arange(8)).query.y - level) ** 2).mean())


def test_the_smallest_error_wins_and_is_set() -> None:
    learner = Constant(5.0, (9.0, 1.0, -7.0))
    chosen, tried = choose_settings(learner, Lines(seed=4), 8)
    assert [row["level"] for row in tried] == [5.0, 9.0, 1.0, -7.0]  # its own is tried too
    assert [row["value"] for row in tried] == pytest.approx([-mean_square(row["level"]) for row in tried])
    assert chosen == {"level": min((5.0, 9.0, 1.0, -7.0), key=mean_square)}
    assert learner.level == chosen["level"]


@pytest.mark.parametrize("levels", [(math.nan, 3.0, 1.0), (3.0, 1.0, math.nan)])
def test_what_is_no_number_never_wins(levels: tuple[float, ...]) -> None:
    learner = Constant(3.0, levels)
    chosen, tried = choose_settings(learner, Lines(seed=4), 8)
    assert chosen == {"level": min((3.0, 1.0), key=mean_square)}
    assert [row["value"] is None for row in tried] == [math.isnan(v) for v in levels]


def test_a_search_that_fails_leaves_the_learner_as_it_was() -> None:
    learner = Constant(2.0, (2.0, 1.0, 13.0))
    with pytest.raises(UserError, match="unlucky"):
        choose_settings(learner, Lines(), 3)
    assert learner.level == 2.0


def test_nothing_to_choose() -> None:
    assert choose_settings(Constant(1.0, ()), Lines(), 3) == ({}, [])


class Watched(ClassTasks):
    """Notes which tasks are asked for."""

    asked: list[list[int]]

    def batch(self, indices: np.ndarray) -> Task:
        self.asked.append(list(indices))
        return super().batch(indices)


def test_every_setting_sees_the_same_tasks(blobs: ClassDataset) -> None:
    source = Watched(blobs, 4, 1, query=5)
    object.__setattr__(source, "asked", [])
    learner = build("pixel-nn", conv4(4, size=16), way=4, classes=8)
    chosen, tried = choose_settings(learner, source, 15)
    assert len(tried) == 6
    assert len(source.asked) == 6
    assert all(tasks == list(range(15)) for tasks in source.asked)
    for row in tried:
        alone = build("pixel-nn", conv4(4, size=16), way=4, classes=8, settings={"blur": row["blur"]})
        assert measure(alone, source, 15).mean("accuracy") == pytest.approx(row["value"])
    best = max(row["value"] for row in tried)
    assert chosen == next({"blur": row["blur"]} for row in tried if row["value"] == best)
    assert learner.blur == chosen["blur"]


@pytest.mark.parametrize("name", [*LEARNERS, *CONTROLS])
def test_all_are_searched_with_the_same_budget(blobs: ClassDataset, name: str) -> None:
    learner = build(name, conv4(4, size=16, blocks=2), way=3, classes=8)
    settings = learner.candidates()
    _, tried = choose_settings(learner, ClassTasks(blobs, 3, 1, query=2), 2)
    assert len(tried) == len(settings)
    assert len(settings) in (0, 6)
    assert len({tuple(s.items()) for s in settings}) == len(settings)
    assert all(hasattr(learner, key) for s in settings for key in s)
