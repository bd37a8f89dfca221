"""`quickstudy evaluate`: one JSON object, every mode, honest words."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from quickstudy.app.cli import main
from quickstudy.errors import RunError
from quickstudy.outer.load_run import load_run
from quickstudy.outer.session import load_splits


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run on the digits."""
    out = tmp_path_factory.mktemp("runs") / "a"
    words = "train --data digits --learner protonet --way 3 --train-way 3 --channels 4 --iterations 4"
    assert main([*words.split(), "--validation-tasks", "4", "--threads", "1", "--out", str(out)]) == 0
    return out


def evaluate(capsys, *words: object) -> dict:
    """What --json prints: exactly one object."""
    capsys.readouterr()
    assert main(["evaluate", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_json_holds_what_other_programs_read(run, capsys):
    result = evaluate(capsys, run, "--tasks", 20)
    for key in ["accuracy", "ci95", "loss", "tasks", "way", "shot", "query", "split", "seed", "transductive"]:
        assert key in result, key
    assert 0 <= result["accuracy"] <= 1
    assert (result["tasks"], result["way"], result["shot"], result["split"]) == (20, 3, 1, "test")
    assert result["transductive"] is False


def test_the_same_tasks_give_the_same_number(run, capsys):
    assert evaluate(capsys, run, "--tasks", 20) == evaluate(capsys, run, "--tasks", 20)


def test_any_way_and_shot_not_only_those_trained(run, capsys):
    result = evaluate(capsys, run, "--tasks", 10, "--way", 2, "--shot", 5, "--query", 3)
    assert (result["way"], result["shot"], result["query"]) == (2, 5, 3)


def test_every_mode_and_which_is_transductive(run, capsys):
    modes = evaluate(capsys, run, "--tasks", 10, "--modes")["modes"]
    assert {m["statistics"]: m["transductive"] for m in modes} == {
        "support": False,
        "running": False,
        "batch": True,
    }
    assert len({m["loss"] for m in modes}) == 3


def test_in_words_it_says_the_mode_and_that_tasks_are_few(run, capsys):
    assert main(["evaluate", str(run), "--tasks", "10"]) == 0
    said = capsys.readouterr().out
    assert "non-transductive" in said
    assert "600" in said


def test_numbers_confusions_and_pictures_are_kept_in_the_run(run, capsys):
    said = evaluate(capsys, run, "--tasks", 12, "--way", 2, "--query", 4)
    folder = run / "evaluations"
    kept = json.loads((folder / "test-2way-1shot-support-4query-12tasks.json").read_bytes())
    confusion = kept.pop("confusion")
    assert kept == said
    assert sum(n for row in confusion.values() for n in row.values()) == 12 * 2 * 4
    right = sum(row.get(name, 0) for name, row in confusion.items())
    assert right / (12 * 2 * 4) == pytest.approx(said["accuracy"])
    for picture in ("calibration", "confusion", "task"):
        with Image.open(folder / f"test-2way-1shot-support-4query-12tasks-{picture}.png") as image:
            assert min(image.size) > 200
    assert (run / "curve.png").exists()


def test_another_evaluation_overwrites_none(run, capsys):
    before = {p.name for p in (run / "evaluations").glob("*.json")}
    evaluate(capsys, run, "--tasks", 3, "--seed", 7)
    evaluate(capsys, run, "--tasks", 3, "--seed", 8)
    evaluate(capsys, run, "--tasks", 3, "--seed", 8, "--search")
    evaluate(capsys, run, "--tasks", 3, "--seed", 8, "--modes")
    new = {p.name for p in (run / "evaluations").glob("*.json")} - before
    assert {name.partition("support-")[2] for name in new} == {
        "3tasks-7seed.json",
        "3tasks-8seed.json",
        "searched-3tasks-8seed.json",
        "modes-3tasks-8seed.json",
    }


def test_data_that_moved_are_named(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for c in range(9):
        (tmp_path / "old" / f"c{c}").mkdir(parents=True)
        for i in range(4):
            Image.fromarray(rng.integers(0, 255, (8, 8), np.uint8)).save(tmp_path / f"old/c{c}/{i}.png")
    words = "train --learner protonet --way 2 --query 1 --train-way 2 --body mlp --channels 4 --iterations 2"
    options = [
        "--size",
        "8",
        "--validation-tasks",
        "2",
        "--out",
        tmp_path / "run",
        "--data",
        tmp_path / "old",
    ]
    assert main([*words.split(), *map(str, options)]) == 0
    (tmp_path / "old").rename(tmp_path / "new")
    assert main(["evaluate", str(tmp_path / "run"), "--tasks", "2"]) == 2
    assert str(tmp_path / "old") in capsys.readouterr().err
    assert evaluate(capsys, tmp_path / "run", "--tasks", 2, "--data", tmp_path / "new")["data"] == "new"
    next((tmp_path / "new").rglob("*.png")).unlink()
    assert main(["evaluate", str(tmp_path / "run"), "--tasks", "2", "--data", str(tmp_path / "new")]) == 2
    assert "has changed since" in capsys.readouterr().err


def test_a_run_that_cannot_be_written_to_is_measured_all_the_same(run, capsys, monkeypatch):
    def full(path, value):
        raise RunError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr("quickstudy.app.evaluate.write_json", full)
    assert main(["evaluate", str(run), "--tasks", "2"]) == 0
    captured = capsys.readouterr()
    assert "macro precision" in captured.out
    assert "nothing kept: cannot write" in captured.err


def test_the_learner_is_searched_as_the_controls_are(tmp_path, capsys):
    words = "train --data digits --learner maml --way 3 --body mlp --channels 4 --iterations 2 --steps 2"
    assert main([*words.split(), "--validation-tasks", "2", "--threads", "1", "--out", str(tmp_path)]) == 0
    plain, searched = (evaluate(capsys, tmp_path, "--tasks", 4, *word) for word in ([], ["--search"]))
    assert plain["chosen"] == {}
    assert set(searched["chosen"]) >= {"inner_lr"}
    assert main(["evaluate", str(tmp_path), "--tasks", "4", "--search"]) == 0
    assert "chosen on meta-validation: " in capsys.readouterr().out


def test_every_mode_leaves_no_choice_of_one(run, capsys):
    assert main(["evaluate", str(run), "--modes", "--statistics", "batch"]) == 2
    assert "leave --statistics away" in capsys.readouterr().err


def test_the_hardest_classes_are_named(run, capsys):
    assert main(["evaluate", str(run), "--tasks", "10"]) == 0
    assert "hardest classes:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--way", "4"], "4 ways"),
        (["--shot", "500"], "examples"),
        (["--tasks", "1"], "tasks"),
        (["--statistics", "batches"], "statistics"),
        (["--split", "val", "--floors"], "only --split test measures them fairly"),
        (["--split", "train", "--search"], "only --split test measures them fairly"),
        (["--data-dir", "nowhere"], "data-dir: there is no folder nowhere"),
        (["--device", "abacus"], "there is no device 'abacus' here"),
    ],
)
def test_what_cannot_be_measured_is_told_in_a_line(run, capsys, words, named):
    capsys.readouterr()
    assert main(["evaluate", str(run), *words]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(said) == 1
    assert named in said[0]


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_other_classes_can_be_measured_too(run, capsys, split):
    splits = load_splits(*load_run(run)[1:])
    said = evaluate(capsys, run, "--tasks", 3, "--split", split, "--device", "cpu")
    assert said["split"] == split
    kept = json.loads((run / "evaluations" / f"{split}-3way-1shot-support-3tasks.json").read_bytes())
    assert set(kept["confusion"]) <= set(getattr(splits, split).names)


def test_floors_are_measured_beside_it_and_kept(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("quickstudy.app.evaluate.SEARCH", 2)
    words = "train --data digits --learner protonet --way 3 --train-way 3 --train-shot 1 --train-query 2"
    small = "--body mlp --channels 4 --size 8 --iterations 2 --validation-tasks 2 --threads 1 --out"
    assert main([*words.split(), *small.split(), str(tmp_path)]) == 0
    said = evaluate(capsys, tmp_path, "--tasks", 4, "--floors")
    names = [row["name"] for row in said["floors"]]
    assert names == ["pixel-nn", "untrained", "scratch", "pretrain-finetune", "pretrain-centroid"]
    assert all(row["tasks"] == 4 and row["seed"] == said["seed"] for row in said["floors"])
    kept = json.loads((tmp_path / "evaluations" / "test-3way-1shot-floors-4tasks.json").read_bytes())
    assert kept["floors"] == said["floors"]
    assert main(["evaluate", str(tmp_path), "--tasks", "4", "--floors"]) == 0  # now from what is kept
    table = capsys.readouterr().out
    assert all(name in table for name in [*names, "protonet"])


def test_who_reads_a_stream_is_also_measured_by_presentation(tmp_path, capsys):
    out = tmp_path / "a"
    words = "train --data digits --learner lstm --way 3 --channels 4 --hidden 8 --iterations 2 --meta-batch 2"
    assert main([*words.split(), "--validation-tasks", "4", "--threads", "1", "--out", str(out)]) == 0
    found = evaluate(capsys, out, "--tasks", 4)["presentations"]
    assert len(found["accuracy"]) == len(found["ci95"]) == 10
    assert found["tasks"] == 4
    assert len(list((out / "evaluations").glob("*-presentations.png"))) == 1
    assert main(["evaluate", str(out), "--tasks", "4"]) == 0
    assert "by presentation of a class in a stream, before its label is told: 1st" in capsys.readouterr().out
    other = tmp_path / "b"
    assert main([*words.split(), "--norm", "support", "--validation-tasks", "4", "--out", str(other)]) == 0
    assert main(["evaluate", str(other), "--tasks", "4"]) == 0
    assert "pictures are normalised by later ones too (train with --norm layer)" in capsys.readouterr().out
