"""Recipes of many parts: which are run, what is kept, and the smaller ones of them end to end."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from quickstudy.errors import UserError
from quickstudy.files import write_json
from quickstudy.outer.config import TrainConfig
from quickstudy.recipes import Setting, presentations, rates, semi_supervised
from quickstudy.recipes.parts import PartsRecipe
from quickstudy.recipes.presentations import PresentationsRecipe, Stream
from quickstudy.recipes.rates import OffBy, RatesRecipe, off_by, regained
from quickstudy.recipes.semi_supervised import Refined, SemiSupervisedRecipe


@dataclass(frozen=True)
class Letter:
    name: str


@dataclass(frozen=True)
class Alphabet(PartsRecipe[Letter]):
    """Notes which parts are run."""

    title: str = "letters"
    source: str = "nowhere"
    ran: list[str] = dataclasses.field(default_factory=list)

    def rows(self, part: Letter, out: Path, setting: Setting) -> list[dict[str, Any]]:
        self.ran.append(part.name)
        out.mkdir(parents=True, exist_ok=True)
        return [{"part": part.name, "tasks": setting.tasks}]


def test_a_part_is_run_once_and_anew_for_other_tasks(tmp_path: Path) -> None:
    recipe = Alphabet(tuple(map(Letter, "abc")))
    assert recipe.run(Setting("letters", tmp_path, only=("b",)))["results"] == [{"part": "b", "tasks": None}]
    every = recipe.run(Setting("letters", tmp_path))["results"]
    assert [row["part"] for row in every] == ["a", "b", "c"]
    assert recipe.ran == ["b", "a", "c"]
    few = recipe.run(Setting("letters", tmp_path, tasks=9, only=("c",)))["results"]
    assert recipe.ran == ["b", "a", "c", "c"]
    assert few == [{"part": "a", "tasks": None}, {"part": "b", "tasks": None}, {"part": "c", "tasks": 9}]
    with pytest.raises(UserError, match="unknown part 'd'"):
        recipe.run(Setting("letters", tmp_path, only=("d",)))


def test_results_of_before_stay_where_the_runs_are_gone(tmp_path: Path) -> None:
    recipe, before = Alphabet(tuple(map(Letter, "abc"))), tmp_path / "letters.json"
    write_json(before, {"results": [{"part": "a", "tasks": 7}, {"part": "b", "tasks": 7}, {"part": "b"}]})
    found = recipe.run(Setting("letters", tmp_path, only=("a",), before=before))["results"]
    assert found == [{"part": "a", "tasks": None}, {"part": "b", "tasks": 7}, {"part": "b"}]
    before.write_text("{")
    assert len(recipe.run(Setting("letters", tmp_path, only=("a",), before=before))["results"]) == 1


@pytest.fixture
def on_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run of these recipes is small, and of the digits."""

    def small(**options: Any) -> TrainConfig:
        options |= {"data": "digits", "way": 3, "channels": 4, "validation_tasks": 4, "query": 2}
        options |= {"size": 16} if options.get("body", "conv4") == "conv4" else {}
        options |= {"train_way": 3} if options.get("train_way") else {}
        options |= {"iterations": min(2, options["iterations"])}
        options |= {"way": options["way"] - ("labelled" in options), "train_query": 2}
        return TrainConfig(**options)

    for module in (presentations, rates, semi_supervised):
        monkeypatch.setattr(module, "TrainConfig", small)


@pytest.mark.usefixtures("on_digits")
def test_streams_beside_the_paper(tmp_path: Path) -> None:
    parts = (Stream("lstm", "flatten"), Stream("mann", "conv4"))
    rows = PresentationsRecipe(parts).run(Setting("presentations", tmp_path, tasks=3))["results"]
    assert [(row["part"], row["presentation"]) for row in rows] == [
        (part.name, k) for part in parts for k in (1, 2, 3)
    ]
    assert [row["paper"] for row in rows] == [24.4, 49.5, 55.3, 36.4, 82.8, 91.0]
    assert all(0 <= row["accuracy"] <= 1 and row["tasks"] == 3 for row in rows)


@pytest.mark.usefixtures("on_digits")
def test_rates_that_are_off(tmp_path: Path) -> None:
    parts = tuple(part for part in off_by() if part.seed == 0 and part.factor in (1.0, 10.0))
    found = RatesRecipe(parts, iterations=2).run(Setting("rates", tmp_path, tasks=4))
    assert [row["part"] for row in found["results"]] == ["maml/1/0", "maml/10/0", "alpha-maml/10/0"]
    usual, off, alpha = (row["accuracy"] for row in found["results"])
    assert found["regained"]["10"] == pytest.approx((alpha - off) / (usual - off), abs=1e-3)
    one = RatesRecipe(parts, iterations=2).run(
        Setting("rates", tmp_path / "other", only=("maml/1/0",), tasks=4)
    )
    assert one["regained"] == {}
    assert OffBy("maml", 1.0, 0) in off_by()


def test_what_is_regained_of_what_is_lost() -> None:
    means = {("maml", 1.0): 0.9, ("maml", 0.1): 0.5, ("alpha-maml", 0.1): 0.7, ("alpha-maml", 10.0): 0.8}
    assert regained(means) == {"0.1": pytest.approx(0.5)}
    assert regained({**means, ("maml", 0.1): means["maml", 1.0]}) == {}  # nothing was lost


@pytest.mark.usefixtures("on_digits")
def test_gains_are_of_the_same_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semi_supervised, "UNLABELLED", 2)
    parts = tuple(Refined("soft", distractors, 97.0) for distractors in (0, 1))
    recipe = SemiSupervisedRecipe(parts, iterations=2)
    rows = recipe.run(Setting("semi-supervised", tmp_path, tasks=5))["results"]
    assert [(row["part"], row["distractors"]) for row in rows] == [("soft/0", 0), ("soft/1", 1)]
    assert {path.name for path in (tmp_path / "semi-supervised").iterdir()} == {"supervised", "soft"}
    for row in rows:
        gain = row["accuracy"] - row["supervised_accuracy"]
        assert row["gain_accuracy"] == pytest.approx(gain, abs=1e-6)
        assert (row["paper"], row["tasks"]) == (97.0, 5)
