"""From options to a finished run folder, and a learner back from one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from quickstudy.data import ClassDataset
from quickstudy.errors import RunError, TaskError, UserError
from quickstudy.inner import computing_in
from quickstudy.outer.config import TrainConfig
from quickstudy.outer.load_run import load_run
from quickstudy.outer.run_folder import RunFolder
from quickstudy.outer.session import load_splits, train

Quick = Callable[..., TrainConfig]


def test_a_run_folder_holds_all_of_a_run(quick: Quick, tmp_path: Path) -> None:
    said: list[str] = []
    history = train(quick(), tmp_path, say=said.append)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "best.safetensors",
        "checkpoint.safetensors",
        "config.json",
        "environment.json",
        "metrics.jsonl",
        "summary.json",
    ]
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["strategy"], config["threads"], config["query_used"]) == ("vmap", 1, 2)
    assert (config["classes"], config["pictures"]["shape"]) == (4, [1, 8, 8])
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert records == history.records
    assert [r["iteration"] for r in records] == [2, 4, 6]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["best"] == max(r["val_accuracy"] for r in records) == history.best
    assert said == [
        "digits: 4/3/3 meta-train/validation/test classes, examples 1x8x8 (ink 255 on 0, 8x8 to 8x8)",
        "meta-training on 4-way 1-shot tasks, queries a class: 2",
        f"tasks by strategy vmap; threads: 1; kernels: {config['kernels']}",
        "validation on 3-way 1-shot tasks, queries a class: 2",
    ]


def test_a_run_that_was_stopped_is_finished(quick: Quick, tmp_path: Path) -> None:
    whole = train(quick(), tmp_path / "whole")
    history = train(quick(), tmp_path / "a", stop=lambda record: record["iteration"] == 4)
    assert history.records == whole.records[:2]
    assert RunFolder.open(tmp_path / "a").finished
    (tmp_path / "a" / "summary.json").unlink()  # a crash came just then: the checkpoint knows
    assert train(quick(), tmp_path / "a", resume=True).iteration == 4
    assert RunFolder.open(tmp_path / "a").finished


def test_the_learner_of_a_run_is_the_best_one(quick: Quick, tmp_path: Path) -> None:
    from quickstudy.outer import measure

    history = train(quick(iterations=20, outer_lr=0.5), tmp_path)
    learner, config, run = load_run(tmp_path)
    assert not learner.training
    measured = measure(learner, config.problem(config.splits().val), config.validation_tasks)
    assert measured.mean("accuracy") == history.best
    assert run.path == tmp_path


def test_a_run_in_bf16_is_trained_and_validated_so(quick: Quick, tmp_path: Path) -> None:
    from quickstudy.outer import measure

    said: list[str] = []
    history = train(quick(precision="bf16"), tmp_path / "bf16", say=said.append)
    assert "; kernels: torch; the net computes in bf16" in said[2]
    saved = json.loads((tmp_path / "bf16" / "config.json").read_text())
    assert (saved["precision"], saved["kernels"]) == ("bf16", "torch")
    plain = train(quick(), tmp_path / "float32")
    assert [r["train_loss"] for r in history.records] != [r["train_loss"] for r in plain.records]
    learner, config, _ = load_run(tmp_path / "bf16")
    assert {v.dtype for v in learner.state_dict().values()} == {torch.float32}
    (best,) = (r for r in history.records if r["iteration"] == history.best_iteration)

    def loss() -> float:
        return measure(learner, config.problem(config.splits().val), config.validation_tasks).mean("loss")

    assert loss() != best["val_loss"]  # afterwards it is used in float32
    with computing_in("bf16"):
        assert loss() == best["val_loss"]


@pytest.mark.parametrize("learner", ["pixel-nn", "untrained"])
def test_controls_have_runs_as_well(learner: str, quick: Quick, tmp_path: Path) -> None:
    train(quick(learner=learner), tmp_path)
    assert type(load_run(tmp_path)[0]).__name__.lower() == learner.replace("-", "")


def test_no_iterations_keep_the_initial_weights(quick: Quick, tmp_path: Path) -> None:
    config = quick(iterations=0)
    train(config, tmp_path)
    fresh = config.make_learner((1, 8, 8), 4).state_dict()
    loaded = load_run(tmp_path)[0].state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in fresh.items())


def test_a_run_that_exists_is_refused(quick: Quick, tmp_path: Path) -> None:
    train(quick(), tmp_path)
    with pytest.raises(RunError, match="exists already: choose another --out, or go on with it by --resume"):
        train(quick(), tmp_path)


def test_resuming_what_is_no_run_is_refused(quick: Quick, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(RunError, match=r"is not a run folder: it has no config\.json"):
        train(quick(), tmp_path, resume=True)


def test_a_way_beyond_the_classes_leaves_no_folder(quick: Quick, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="too few in a part for 4 ways"):
        train(quick(way=4), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_without_weights_is_told(quick: Quick, tmp_path: Path) -> None:
    train(quick(), tmp_path)
    (tmp_path / "best.safetensors").unlink()
    with pytest.raises(RunError, match=r"has no best\.safetensors: the run has not got that far"):
        load_run(tmp_path)


def test_weights_of_another_run_are_told(quick: Quick, tmp_path: Path) -> None:
    train(quick(), tmp_path / "a")
    train(quick(channels=5), tmp_path / "b")
    (tmp_path / "a" / "best.safetensors").write_bytes((tmp_path / "b" / "best.safetensors").read_bytes())
    with pytest.raises(RunError, match=r"best\.safetensors does not fit"):
        load_run(tmp_path / "a")


def test_a_config_without_the_pictures_is_told(quick: Quick, tmp_path: Path) -> None:
    train(quick(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["pictures"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match=r"config\.json does not hold a training run's options: no 'pictures'"):
        load_run(tmp_path)


def test_splits_of_a_run_are_those_it_was_trained_on(
    quick: Quick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more class, and classes that were trained on would be among the unseen ones."""
    config = quick()
    train(config, tmp_path / "a")
    _, saved, run = load_run(tmp_path / "a")
    data = load_data_of(config)
    names = [part.names for part in load_splits(saved, run)]
    assert names == [part.names for part in data.split()]
    fewer = data.subset([0, 1, 2, 3, 4, 5, 6, 7, 8])
    painted = replace(data, x=data.x.clone())
    painted.x[-1] ^= 1
    for changed in (fewer, painted):
        monkeypatch.setattr("quickstudy.outer.config.load_data", lambda *a, changed=changed, **k: changed)
        with pytest.raises(RunError, match=r"digits has changed since .* was begun \(other \w+ "):
            load_splits(saved, run)
    with pytest.raises(RunError, match=r"digits has changed since .* \(other val classes or pictures\)"):
        train(quick(iterations=8), tmp_path / "a", resume=True)


def test_one_process_at_a_time(quick: Quick, tmp_path: Path) -> None:
    train(quick(), tmp_path)
    with RunFolder.open(tmp_path).claimed(), pytest.raises(RunError, match="is in use: another process"):
        train(quick(iterations=8), tmp_path, resume=True)
    assert train(quick(iterations=8), tmp_path, resume=True).iteration == 8


def test_the_device_is_replayed_and_another_one_refused(
    quick: Quick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(quick(), tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["device"] == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # what would be chosen today
    assert train(quick(iterations=8), tmp_path, resume=True).iteration == 8
    monkeypatch.undo()
    (tmp_path / "config.json").write_text(json.dumps({**saved, "device": "cuda"}))
    with pytest.raises(RunError, match="was begun with device=cuda, not cpu"):
        train(quick(iterations=9, device="cpu"), tmp_path, resume=True)
    if not torch.cuda.is_available():
        with pytest.raises(RunError, match="was begun on cuda, and can go on only where there is one"):
            train(quick(iterations=9), tmp_path, resume=True)
        with pytest.raises(UserError, match=r"^there is no device 'cuda' here"):
            load_run(tmp_path, device="cuda")


def test_a_folder_of_data_is_found_from_anywhere(
    quick: Quick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    assert quick(data="mine").data == str(tmp_path / "mine")
    Path("digits").mkdir()
    assert quick(data="digits").data == "digits"


def load_data_of(config: TrainConfig) -> ClassDataset:
    from quickstudy.outer import config as module

    return module.load_data(config.data)


def test_a_run_of_before_there_were_fingerprints_is_read(quick: Quick, tmp_path: Path) -> None:
    train(quick(iterations=2), tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    del saved["splits"]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    _, config, run = load_run(tmp_path)
    assert len(load_splits(config, run).test) == 3
    assert train(quick(iterations=4), tmp_path, resume=True).iteration == 4


def test_a_device_that_is_not_there(quick: Quick, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no device 'warp:9' here"):
        train(quick(device="warp:9"), tmp_path)
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="there is no device 'cuda' here: leave --device away"):
            train(quick(device="cuda"), tmp_path)
    assert not list(tmp_path.iterdir())
