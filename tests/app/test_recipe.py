"""`quickstudy recipe`: what is listed can be run, and the file says what made it."""

from __future__ import annotations

import dataclasses
import json
import sys

from quickstudy.app.cli import main
from quickstudy.learners import CONTROLS
from quickstudy.outer import measure
from quickstudy.recipes import RECIPES, Measure, Recipe, registry
from quickstudy.recipes.sinusoid import SinusoidRecipe, sinusoid_maml
from quickstudy.tasks import Sinusoids


def test_every_recipe_is_listed(capsys):
    assert main(["recipe", "list"]) == 0
    said = "".join(capsys.readouterr().out.split())
    assert all(name[:12] in said for name in RECIPES)


def test_an_unknown_recipe_names_the_nearest(capsys):
    assert main(["recipe", "run", "omniglot-protonets"]) == 2
    assert "omniglot-protonet" in capsys.readouterr().err


def test_a_recipe_is_trained_measured_and_written_down(tmp_path, monkeypatch, capsys):
    plan = RECIPES["omniglot-protonet"]
    assert isinstance(plan, Recipe)
    changes = {
        "data": "digits",
        "way": 3,
        "train_way": 3,
        "train_query": 5,
        "channels": 4,
        "iterations": 3,
        "size": 16,
    }
    small = dataclasses.replace(plan.config, **changes, validation_tasks=4)
    short = dataclasses.replace(
        plan, config=small, measures=(Measure(2, 1, 5, statistics="running", tasks=4),)
    )
    monkeypatch.setitem(registry.RECIPES, "short", short)
    monkeypatch.setattr(sys.modules["quickstudy.recipes.recipe"], "SEARCH", 2)
    words = [
        "recipe",
        "run",
        "short",
        "--runs",
        str(tmp_path / "runs"),
        "--results",
        str(tmp_path / "results"),
    ]
    assert main([*words, "--no-floors"]) == 0
    result = json.loads((tmp_path / "results" / "short.json").read_text())
    assert result["command"] == "QUICKSTUDY_DATA=DIR quickstudy recipe run short --no-floors"
    (row,) = result["results"]
    assert (row["way"], row["tasks"], row["statistics"], row["train_seed"]) == (2, 4, "running", 0)

    def again(*args, **kwargs):
        raise AssertionError("it was measured before")

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["quickstudy.recipes.recipe"], "measure_anew", again)
        assert main([*words, "--no-floors"]) == 0
        assert json.loads((tmp_path / "results" / "short.json").read_text())["results"] == [row]
    (kept,) = (tmp_path / "runs" / "short" / "measured").iterdir()
    kept.write_text("{")
    capsys.readouterr()
    assert main([*words, "--no-floors"]) == 2
    assert f"{kept.name} is damaged" in capsys.readouterr().err
    kept.unlink()
    assert main([*words, "--tasks", "4"]) == 0
    floors = json.loads((tmp_path / "results" / "short.json").read_text())["floors"]
    assert {row["tasks"] for row in floors} == {4}
    assert [row["name"] for row in floors] == list(CONTROLS)
    assert main([*words, "--no-floors"]) == 0  # goes on from the finished run
    assert json.loads((tmp_path / "results" / "short.json").read_text())["results"] == result["results"]


def test_sinusoids_measure_learning_by_steps(tmp_path):
    from quickstudy.recipes import Setting

    result = SinusoidRecipe(iterations=150).run(Setting("sinusoid-maml", tmp_path, tasks=40))
    mse = {(r["learner"], r["steps"]): r["mse"] for r in result["results"]}
    assert len(mse) == 6
    test = Sinusoids(shot=10, query=100, seed=2)
    untrained = {steps: measure(sinusoid_maml(steps), test, 40).mean("loss") for steps in (0, 1, 10)}
    for (name, steps), value in mse.items():
        assert value < 0.95 * untrained[steps], (name, steps)
    # MAML is trained to gain by its first step; who was not gains less by ten.
    assert mse["maml", 1] < 0.95 * mse["maml", 0]
    assert mse["maml", 1] < 0.95 * mse["pretrained", 10]
