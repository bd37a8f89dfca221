"""`quickstudy recipe`: what is listed can be run, and the file says what made it."""

from __future__ import annotations

import dataclasses
import json

from quickstudy.app.cli import main
from quickstudy.recipes import RECIPES, Measure, Recipe, registry
from quickstudy.recipes.sinusoid import SinusoidRecipe


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
    changes = {"data": "digits", "way": 3, "train_way": 3, "train_query": 5, "channels": 4, "iterations": 3}
    small = dataclasses.replace(plan.config, **changes, validation_tasks=4)
    short = dataclasses.replace(
        plan, config=small, measures=(Measure(2, 1, 5, statistics="running", tasks=4),)
    )
    monkeypatch.setitem(registry.RECIPES, "short", short)
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
    assert main([*words, "--no-floors"]) == 0  # goes on from the finished run
    assert json.loads((tmp_path / "results" / "short.json").read_text())["results"] == result["results"]


def test_sinusoids_measure_learning_by_steps(tmp_path):
    from quickstudy.recipes import Setting

    result = SinusoidRecipe(iterations=150).run(Setting("sinusoid-maml", tmp_path, tasks=40))
    mse = {(r["learner"], r["steps"]): r["mse"] for r in result["results"]}
    assert mse["maml", 1] < mse["maml", 0]
    assert mse["pretrained", 0] < 6  # about the variance of the family, 4.3 on average over amplitudes
    assert len(mse) == 6
