"""Functions on the command line: trained, measured beside simple answers, and answered at points."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import quickstudy as qs
from quickstudy.app.functions import points
from quickstudy.errors import DataError, UserError
from quickstudy.evaluation.paired import paired
from quickstudy.evaluation.reports import subjects
from quickstudy.outer.words import as_words


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """MAML on sinusoids, and a neural process on draws of Gaussian processes."""
    folder = tmp_path_factory.mktemp("functions")
    more: dict[str, Any] = {"channels": 16, "threads": 1, "strategy": "loop", "validation_tasks": 20}
    for name, data, learner in (("sines", "sinusoid", "maml"), ("draws", "gaussian-process", "cnp")):
        config = qs.TrainConfig(data=data, learner=learner, shot=5, iterations=20, meta_batch=4, **more)
        qs.train(config, folder / name)
    return {name: folder / name for name in ("sines", "draws")}


def test_what_is_measured_is_of_other_functions_beside_simple_answers(
    runs: dict[str, Path], command: Callable[..., Any]
) -> None:
    said = command("evaluate", runs["draws"], "--tasks", "30", "--query", "40", "--json")
    assert said.code == 0, said.err
    told = json.loads(said.out)
    source = qs.GaussianProcesses(shot=5, query=40, seed=3 * 2 + 2)
    learner, _, _ = qs.load_run(runs["draws"])
    assert told["loss"] == pytest.approx(qs.evaluate(learner, source, 30).loss)
    batch = source.batch(np.arange(30))
    mean = batch.support.y.mean(1, keepdim=True)
    floors = {row["name"]: row for row in told["floors"]}
    assert list(floors) == ["support-mean", "nearest", "exact"]
    assert floors["support-mean"]["mse"] == pytest.approx(
        float((batch.query.y - mean).square().mean()), rel=1e-5
    )
    assert floors["exact"]["log_likelihood"] > told["log_likelihood"]
    kept = runs["draws"] / "evaluations"
    assert {path.name for path in kept.iterdir()} == {
        "test-5shot-30tasks-40query.json",
        "test-5shot-30tasks-40query-fit.png",
    }


def test_a_report_of_functions_is_of_errors(
    runs: dict[str, Path], tmp_path: Path, command: Callable[..., Any]
) -> None:
    """The number of `evaluate`, what simple answers are worth, and of two the one of the smaller error."""
    other = tmp_path / "longer"
    config = qs.TrainConfig.from_json(qs.RunFolder.open(runs["sines"]).config)
    qs.train(replace(config, iterations=60, seed=1), other)
    words = ["report", runs["sines"], other, runs["draws"], "--out", tmp_path / "r"]
    said = command(*words, "--tasks", "30", "--grid", "4")
    assert said.code == 0, said.err
    first, second, draws = subjects([runs["sines"], other, runs["draws"]], 30, 4)
    result = qs.evaluate(first.learner, qs.Sinusoids(shot=5, query=100, seed=3 * 2 + 2), 30)
    assert first.measured["loss"] == pytest.approx(result.loss)
    assert first.worst[0] == max(range(30), key=lambda i: result.by_task[i])
    assert first.grid[1, 5] != first.grid[1, 10]
    text = (tmp_path / "r" / "report.html").read_text()
    assert f"<td>{result.loss:.4f} ± {result.ci95:.4f}</td>" in text
    means = [np.mean(s.measured["by_task"]) for s in (first, second)]
    assert paired(first.measured["by_task"], second.measured["by_task"]).clear
    assert f"{('sines', 'longer')[int(np.argmin(means))]} is better" in text
    assert [floor.name for floor in draws.floors] == ["support-mean", "nearest", "exact"]
    assert f"<td>{draws.floors[2].evaluation.metrics['log_likelihood']:.3f}</td>" in text
    assert "Accuracy on classes" not in text
    assert len(list((tmp_path / "r" / "pictures").glob("*-task-*.png"))) == 9


@pytest.mark.parametrize(("learner", "judged"), [("maml", "mean_squared_error"), ("cnp", "log_likelihood")])
def test_a_search_of_functions_is_judged_by_what_they_are(
    learner: str, judged: str, tmp_path: Path, command: Callable[..., Any]
) -> None:
    words = f"tune --data sinusoid --shot 5 --learner {learner} --channels 16 --meta-batch 4 --iterations 40"
    more = "--validation-tasks 40 --validate-every 20 --threads 1 --strategy vmap --outer-lr 1e-6 --trials 4"
    search = ["--search", "outer_lr=0.000001..0.02", "--pruner", "none", "--out", tmp_path / "s"]
    said = command(*words.split(), *more.split(), *search)
    assert said.code == 0, said
    found = json.loads((tmp_path / "s" / "best.json").read_text())
    trials = json.loads((tmp_path / "s" / "trials.json").read_text())
    best = max(trial["value"] for trial in trials)
    assert best > trials[0]["value"]  # better than a start that learns nothing
    assert found[judged] == (-best if learner == "maml" else best)
    assert found["config"]["settings"].get("inner_lr", 0.01) == 0.01  # as train has it for functions
    records = list(qs.RunFolder.open(found["run"]).records())
    assert max(r.get("val_log_likelihood", -r["val_loss"]) for r in records) == best
    assert judged.replace("_", " ") in said.out.replace("-", " ")
    for name in ("history", "options", "importance"):
        assert (tmp_path / "s" / f"{name}.png").stat().st_size > 5000


def test_estimators_take_runs_of_their_kind(runs: dict[str, Path], run: Path) -> None:
    x = np.linspace(-2, 2, 6)[:, None]
    found = qs.FewShotRegressor.from_run(runs["sines"], steps=3).fit(x, np.sin(x[:, 0]))
    learner, _, _ = qs.load_run(runs["sines"])
    learner.test_steps = 3
    np.testing.assert_allclose(found.predict(x), learner.adapt(x, np.sin(x))(x)[:, 0].detach(), atol=1e-6)
    with pytest.raises(UserError, match="learned functions, of sinusoid: FewShotRegressor takes it"):
        qs.FewShotClassifier.from_run(runs["sines"])
    with pytest.raises(UserError, match="learned classes, of glyphs: FewShotClassifier takes it"):
        qs.FewShotRegressor.from_run(run)


def test_inner_steps_are_measured_and_drawn(runs: dict[str, Path], command: Callable[..., Any]) -> None:
    said = command("evaluate", runs["sines"], "--tasks", "20", "--shot", "7")
    assert "maml on sinusoid (test functions): mean squared error" in said.out
    assert "nearest" in said.out
    kept = runs["sines"] / "evaluations" / "test-7shot-20tasks.json"
    assert {"0", "1", "5", "50"} <= set(json.loads(kept.read_text())["by_step"])
    assert kept.with_name("test-7shot-20tasks-steps.png").stat().st_size > 0
    assert (runs["sines"] / "curve.png").stat().st_size > 0


def test_values_at_points_are_the_predictor_s(
    runs: dict[str, Path], tmp_path: Path, command: Callable[..., Any]
) -> None:
    (tmp_path / "p.csv").write_text("x,y\n0,0\n1.5,2\n\n3,0.2\n")
    (tmp_path / "q.csv").write_text("4\n5\n")
    asked = ("--support", tmp_path / "p.csv", "--query", "-0.5", tmp_path / "q.csv")
    x, y = torch.tensor([[0.0], [1.5], [3.0]]), torch.tensor([[0.0], [2.0], [0.2]])
    for name, path in runs.items():
        predictor = qs.load_run(path)[0].adapt(x, y)
        wanted = predictor(torch.tensor([[-0.5], [4.0], [5.0]]))
        rows = json.loads(command("predict", path, *asked, "--json").out)["predictions"]
        assert [row["x"] for row in rows] == [-0.5, 4.0, 5.0]
        assert [row["y"] for row in rows] == pytest.approx(wanted[:, 0].tolist(), abs=1e-5)
        assert all(("std" in row) == (name == "draws") for row in rows)
    assert "standard deviation" in command("predict", runs["draws"], *asked).out


def test_a_regressor_of_the_run_says_the_same(runs: dict[str, Path]) -> None:
    regressor = qs.FewShotRegressor.from_run(runs["sines"]).fit([[0.0], [1.0]], [0.0, 1.0])
    wanted = qs.load_run(runs["sines"])[0].adapt([[0.0], [1.0]], [[0.0], [1.0]])([[2.0]])
    assert regressor.predict([[2.0]]) == pytest.approx([float(wanted)], abs=1e-6)


def test_a_run_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    """And ends with the weights of one that was not."""
    how: dict[str, Any] = {"data": "lines", "shot": 2, "channels": 4, "threads": 1, "strategy": "loop"}
    how |= {"iterations": 6, "meta_batch": 2, "validate_every": 2, "validation_tasks": 4}
    config = qs.TrainConfig(**how)
    qs.train(config, tmp_path / "whole")

    def stop(record: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        qs.train(config, tmp_path / "parts", log=stop)
    qs.train(config, tmp_path / "parts", resume=True)
    a, b = (qs.load_run(tmp_path / name)[0].state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_usual_options_are_those_for_functions() -> None:
    config = qs.TrainConfig(data="sinusoid", learner="maml", shot=10)
    assert (config.settings["inner_lr"], config.body, config.way) == (0.01, "mlp", 1)
    assert qs.TrainConfig(data="sinusoid", learner="imaml").settings["inner_lr"] == 0.01
    assert qs.TrainConfig(data="glyphs", learner="maml").settings["inner_lr"] == 0.4
    words = as_words(qs.TrainConfig(data="sinusoid", shot=10, settings={"inner_lr": 0.4}))
    assert words[words.index("--inner-lr") + 1] == "0.4"
    assert "--inner-lr" not in as_words(config)
    assert qs.TrainConfig.from_json(config.json()) == config


SINES = ["train", "--data", "sinusoid", "--out", "a"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (
            ["train", "--data", "sinusoid", "--learner", "protonet", "--out", "a"],
            "protonet cannot learn functions (sinusoid): this learner needs class labels, whole numbers",
        ),
        (
            ["train", "--data", "sinusoid", "--learner", "mann", "--labels", "strings", "--out", "a"],
            "mann cannot learn functions (sinusoid): strings are for classes",
        ),
        (
            ["train", "--data", "sinusoid", "--learner", "pretrain-finetune", "--out", "a"],
            "not meta-trained on tasks",
        ),
        (
            ["train", "--data", "sinusoid", "--way", "3", "--out", "a"],
            "has no classes of pictures: leave --way away",
        ),
        (["train", "--data", "sinusoid", "--augment", "affine", "--out", "a"], "leave --augment away"),
        (["train", "--data", "sinusoid", "--body", "resnet", "--out", "a"], "single numbers: --body mlp"),
        (["evaluate", "sines", "--way", "5"], "leave --way away"),
        (["evaluate", "sines", "--floors"], "leave --floors away"),
        (["serve", "sines"], "not trained on pictures"),
        (["predict", "sines", "--support", "none.csv", "--query", "1"], "cannot be read as a CSV file"),
        (["predict", "sines", "--support", "p.csv", "--query", "nan"], "no finite number"),
    ],
)
def test_what_is_wrong_is_named(
    runs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: Callable[..., str],
    words: list[str],
    why: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.csv").write_text("0,0\n1,1\n")
    assert why in refused(*(runs["sines"] if word == "sines" else word for word in words))
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "holds no numbers"),
        ("x,y\n", "holds no numbers"),
        ("1,2\n3\n", "line 2 is not 2 numbers"),
        ("1,2\n3,inf\n", "line 2 is not 2 numbers"),
        ("1,2\na,b\n", "line 2 is not 2 numbers"),
        ("1,2,3\n", "line 1 is not 2 numbers"),
    ],
)
def test_files_that_are_no_points(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=why):
        points(tmp_path / "a.csv", 2)
