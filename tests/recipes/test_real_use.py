from __future__ import annotations

from pathlib import Path

import pytest

from quickstudy.errors import UserError
from quickstudy.recipes import Setting, learners, real_use
from quickstudy.recipes.learners import LearnersRecipe, Part
from quickstudy.recipes.real_use import RealUseRecipe
from quickstudy.tasks import ClassTasks, LongTailed, Mislabelled

SMALL = {"way": 3, "channels": 4, "size": 16, "validation_tasks": 4, "query": 3}


def test_every_run_in_every_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(learners.DATA, "digits", {"data": "digits"})
    monkeypatch.setitem(learners.PROBLEMS, "digits", ((2, 1),))
    cells = {
        "3-way 1-shot": lambda data: ClassTasks(data, 3, 1, 2),
        "wrong": lambda data: Mislabelled(ClassTasks(data, 2, 5, 2)),
        "tail": lambda data: LongTailed(ClassTasks(data, 2, 5, 2)),
    }
    monkeypatch.setattr(real_use, "grid", lambda: cells)
    parts = (
        Part("protonet", "digits", SMALL | {"train_way": 3}),
        Part("maml", "digits", SMALL | {"way": 2}, {"steps": 1}),
        Part("anil", "digits", SMALL),
    )
    with pytest.raises(UserError, match="recipe run learners"):
        RealUseRecipe(parts).run(Setting("real-use", tmp_path))
    LearnersRecipe(parts[:2], seconds=0.5).run(Setting("learners", tmp_path, tasks=2))
    rows = RealUseRecipe(parts).run(Setting("real-use", tmp_path, tasks=5))["results"]
    assert [(row["learner"], row["cell"]) for row in rows] == [
        (name, cell) for name in ("protonet", "maml") for cell in cells
    ]
    refused = [row for row in rows if row["accuracy"] is None]
    assert [(row["learner"], row["cell"]) for row in refused] == [("maml", "3-way 1-shot")]
    assert "proto-maml, protonet, r2d2 and all that compare examples answer any number" in refused[0]["why"]
    assert all(row["tasks"] == 5 for row in rows if row not in refused)
