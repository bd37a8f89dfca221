from __future__ import annotations

from pathlib import Path

import pytest

from quickstudy.errors import UserError
from quickstudy.learners import CONTROLS, LEARNERS
from quickstudy.recipes import Setting, learners
from quickstudy.recipes.learners import LearnersRecipe, Part, parts

SMALL = {"way": 3, "channels": 4, "size": 16, "validation_tasks": 4, "query": 3}


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(learners.DATA, "digits", {"data": "digits"})
    monkeypatch.setitem(learners.PROBLEMS, "digits", ((3, 1), (2, 2)))


def test_parts_are_trained_once_and_gathered(digits: None, tmp_path: Path) -> None:
    options = SMALL | {"train_way": 3}
    recipe = LearnersRecipe(
        (Part("protonet", "digits", options), Part("maml", "digits", SMALL, {"steps": 1})), seconds=1.0
    )
    only = Setting("learners", tmp_path, tasks=6, only=("digits/maml",))
    rows = recipe.run(only)["results"]
    assert {row["learner"] for row in rows} == {"maml"}
    assert "--only digits/maml" in recipe.run(only)["command"]
    every = recipe.run(Setting("learners", tmp_path, tasks=6))["results"]
    assert [row for row in every if row["learner"] == "maml"] == rows
    told = {(r["split"], r["way"], r["shot"], r["statistics"]) for r in every if r["learner"] == "protonet"}
    assert told == {
        ("test", 3, 1, "support"),
        ("test", 2, 2, "support"),
        ("test", 3, 1, "batch"),
        ("train", 3, 1, "support"),
    }
    for row in every:
        assert 0 < row["accuracy"] <= 1
        assert row["tasks"] == 6
        assert row["iterations"] >= 1


def test_more_ways_than_a_head_has_are_said(
    digits: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(learners.PROBLEMS, "digits", ((2, 1), (3, 1)))
    part = Part("maml", "digits", SMALL | {"way": 2}, {"steps": 1})
    rows = LearnersRecipe((part,), seconds=0.5).run(Setting("learners", tmp_path, tasks=4))["results"]
    (refused,) = [row for row in rows if row["way"] == 3]
    assert refused["accuracy"] is None
    assert "at most 2 ways, not 3" in refused["why"]


def test_an_unknown_part() -> None:
    with pytest.raises(UserError, match="omniglot/maml"):
        LearnersRecipe(parts()).run(Setting("learners", only=("omniglot/mamml",)))


def test_every_learner_has_a_part() -> None:
    for data in ("omniglot", "quickdraw"):
        found = {part.learner for part in parts() if part.data == data}
        assert found == {*LEARNERS, *CONTROLS}
