"""The six runs are trained as the published ones were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import quickstudy as qs
from quickstudy.evaluation.reports.pictures import published
from quickstudy.recipes import six_curves
from quickstudy.recipes.recipe import Setting
from quickstudy.recipes.registry import recipe
from quickstudy.recipes.six_curves import Problem, SixCurvesRecipe


def test_there_is_a_published_curve_for_each() -> None:
    parts = SixCurvesRecipe().parts
    theirs = {(r["way"], r["shot"]): r for r in published()["runs"] if r["samples_per_class"] == 20}
    assert {(part.way, part.shot) for part in parts} == set(theirs)
    for part in parts:
        config, told = part.config(None), theirs[part.way, part.shot]
        assert config.meta_batch == told["batch"]
        assert config.iterations == len(told["val_accuracy"]) * told["batches_an_epoch"]
        assert (config.query, config.train_query) == (part.shot, part.shot)


def test_a_row_has_the_published_number_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Brief(Problem):
        def config(self, data_dir: Path | None) -> six_curves.TrainConfig:
            options = {"channels": 4, "iterations": 2, "validate_every": 2, "validation_tasks": 2}
            small = {"data": "glyphs", "samples_per_class": 20, "meta_batch": 2, "threads": 1}
            return six_curves.TrainConfig(**options, **small, way=self.way, shot=self.shot, query=1)

    brief = SixCurvesRecipe(parts=(Brief(5, 1),))
    monkeypatch.setitem(six_curves.__dict__, "TASKS", 4)
    drawn: list[tuple[Any, ...]] = []
    monkeypatch.setitem(six_curves.__dict__, "six_curves", lambda *given: drawn.append(given))
    found = brief.run(Setting("quickdraw-curves", runs=tmp_path))
    ((ours, *how),) = drawn
    runs = tmp_path / "quickdraw-curves"
    assert ours == {1: list(qs.RunFolder(runs / "5-way-1-shot").records())}
    assert how == [5, 20, runs / "5-way.png"]
    (row,) = found["results"]
    assert (row["paper"], row["tasks"], row["part"]) == (59.4, 4, "5-way-1-shot")
    json.dumps(found)
    assert isinstance(recipe("quickdraw-curves"), SixCurvesRecipe)
