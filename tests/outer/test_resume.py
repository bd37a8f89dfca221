"""What `--resume` keeps of a run, goes on with, and refuses."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from quickstudy.errors import RunError
from quickstudy.outer.config import TrainConfig
from quickstudy.outer.session import train

Quick = Callable[..., TrainConfig]
Outcome = Callable[[Path], dict[str, Any]]


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": "linear", "optimizer": "adamw"},
        {"schedule": "halving", "optimizer": "sgd", "validate_every": 4},
        {"learner": "maml", "norm": "running", "body": "conv4", "channels": 2, "size": 8, "strategy": "vmap"},
        {"learner": "reptile", "settings": {"steps": 2, "inner_batch": 2}},
        {"patience": 2, "outer_lr": 0.0, "iterations": 12},
        {"precision": "bf16", "learner": "maml", "settings": {"gradient": "flat", "steps": 5}},
        {"learner": "pretrain-centroid"},
        {"optimizer": "adam-hd", "schedule": "linear"},
        {"learner": "alpha-maml", "optimizer": "sgd-hd"},
        {"learner": "maml++", "norm": "support", "settings": {"steps": 2}, "iterations": 12},
    ],
    ids=lambda c: next(iter(c)) + "-" + str(next(iter(c.values()))),
)
def test_every_part_of_the_state_is_kept(
    changes: dict[str, Any],
    quick: Quick,
    every_step: None,
    tmp_path: Path,
    outcome: Outcome,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if changes.get("body") == "conv4":
        from quickstudy.data import digits

        data, changes = digits(size=16).limit(12), {**changes, "size": 16}
        monkeypatch.setattr("quickstudy.outer.config.load_data", lambda *a, **k: data)
    config = quick(**changes)
    train(config, tmp_path / "unbroken")
    module = sys.modules["quickstudy.outer.meta_train"]
    estimate, calls = module.estimate, 0

    def stopped(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls % 2 == 0:
            raise KeyboardInterrupt
        return estimate(*args)

    monkeypatch.setattr(module, "estimate", stopped)
    for _ in range(20):
        try:
            train(config, tmp_path / "stopped", resume=True)
            break
        except KeyboardInterrupt:
            pass
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "unbroken")


def test_patience_counts_on_after_a_stop(quick: Quick, tmp_path: Path) -> None:
    config = quick(patience=2, outer_lr=0.0, iterations=12)
    history = train(config, tmp_path / "a")
    assert (history.stopped_early, history.iteration, history.best_iteration) == (True, 6, 2)
    again = train(config, tmp_path / "a", resume=True)
    assert (again.stopped_early, again.iteration, again.records) == (True, 6, history.records)


def stamps(path: Path) -> dict[str, tuple[int, bytes]]:
    return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in path.iterdir()}


@pytest.mark.parametrize("learner", ["protonet", "pixel-nn"])
def test_a_finished_run_is_left_as_it_is(learner: str, quick: Quick, tmp_path: Path) -> None:
    config = quick(learner=learner)
    train(config, tmp_path / "a")
    before = stamps(tmp_path / "a")
    train(config, tmp_path / "a", resume=True)
    assert stamps(tmp_path / "a") == before


def test_more_iterations_go_on(quick: Quick, tmp_path: Path, outcome: Outcome) -> None:
    train(quick(iterations=8, schedule="constant"), tmp_path / "at once")
    train(quick(iterations=4, schedule="constant"), tmp_path / "longer")
    train(quick(iterations=8, schedule="constant"), tmp_path / "longer", resume=True)
    assert outcome(tmp_path / "longer") == outcome(tmp_path / "at once")


def test_a_missing_folder_begins(quick: Quick, tmp_path: Path) -> None:
    assert train(quick(), tmp_path / "new" / "run", resume=True).iteration == 6


def test_a_folder_in_which_nothing_was_begun_begins(quick: Quick, tmp_path: Path) -> None:
    (tmp_path / "environment.json").write_text("{}")
    (tmp_path / "config.json.123.tmp").write_text('{"vers')
    assert train(quick(), tmp_path, resume=True).iteration == 6
    assert not list(tmp_path.glob("*.tmp"))


def test_half_a_line_of_metrics(quick: Quick, tmp_path: Path, outcome: Outcome) -> None:
    train(quick(), tmp_path / "a")
    expected = outcome(tmp_path / "a")
    (tmp_path / "a" / "summary.json").unlink()
    with open(tmp_path / "a" / "metrics.jsonl", "a") as file:
        file.write('{"iteration": 8, "train')
    train(quick(), tmp_path / "a", resume=True)
    assert outcome(tmp_path / "a") == expected


def test_lost_records_are_told(quick: Quick, tmp_path: Path) -> None:
    train(quick(), tmp_path)
    (tmp_path / "summary.json").unlink()
    first = (tmp_path / "metrics.jsonl").read_bytes().split(b"\n")[0]
    (tmp_path / "metrics.jsonl").write_bytes(first + b"\n")
    with pytest.raises(RunError, match=r"metrics\.jsonl is damaged: it holds 1 of 3 records"):
        train(quick(), tmp_path, resume=True)
    assert (tmp_path / "metrics.jsonl").read_bytes() == first + b"\n"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"shot": 2}, "shot=1, not 2"),
        ({"outer_lr": 0.01}, r"outer_lr=0\.05, not 0\.01"),
        ({"iterations": 5}, "iterations=6, not 5"),
        ({"threads": 2}, "threads=1, not 2"),
        ({"strategy": "loop"}, "strategy=vmap, not loop"),
        ({"learner": "maml"}, "learner=protonet, not maml"),
        ({"seed": 1}, "seed=0, not 1"),
        ({"precision": "bf16"}, "precision=float32, not bf16"),
    ],
)
def test_changed_options_are_refused(
    changes: dict[str, Any], said: str, quick: Quick, tmp_path: Path
) -> None:
    train(quick(), tmp_path)
    with pytest.raises(RunError, match=f"was begun with {said}"):
        train(quick(**changes), tmp_path, resume=True)


def test_an_option_of_the_learner_that_changed_is_refused(quick: Quick, tmp_path: Path) -> None:
    options = {"learner": "reptile", "iterations": 2}
    train(quick(**options, settings={"steps": 2, "inner_batch": 2}), tmp_path)
    with pytest.raises(RunError, match="steps=2, not 3"):
        train(quick(**options, settings={"steps": 3, "inner_batch": 2}), tmp_path, resume=True)


def test_an_option_that_is_left_away_is_its_default_and_refused(quick: Quick, tmp_path: Path) -> None:
    options = {"learner": "reptile", "iterations": 2}
    train(quick(**options, settings={"steps": 2, "inner_batch": 2}), tmp_path)
    with pytest.raises(RunError, match="steps=2, not 5"):
        train(quick(**options, settings={"inner_batch": 2}), tmp_path, resume=True)
    again = quick(**options, settings={"steps": 2, "inner_batch": 2, "inner_lr": 1e-3})
    assert train(again, tmp_path, resume=True).iteration == 2


def test_threads_and_strategy_are_replayed(
    quick: Quick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(quick(strategy="vmap", iterations=2), tmp_path)
    seen = []
    module = sys.modules["quickstudy.outer.session"]
    monkeypatch.setattr(
        module, "meta_train", lambda *a, **k: seen.append((k["strategy"], torch.get_num_threads()))
    )
    torch.set_num_threads(2)
    try:
        with pytest.raises(AttributeError):  # the stand-in returns nothing
            train(quick(threads=None, iterations=4), tmp_path, resume=True)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert seen == [("vmap", 1)]


def test_data_that_changed_are_refused(quick: Quick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(quick(iterations=2), tmp_path)
    from quickstudy.data import digits

    data = digits(size=9).limit(12)
    monkeypatch.setattr("quickstudy.outer.config.load_data", lambda *a, **k: data)
    with pytest.raises(RunError, match="was begun on other data: pictures was"):
        train(quick(iterations=4), tmp_path, resume=True)


def milestones(optimizer: torch.optim.Optimizer) -> LRScheduler:
    return lr_scheduler.MultiStepLR(optimizer, [2, 5], 0.5)


def warmed_up(optimizer: torch.optim.Optimizer) -> LRScheduler:
    warm = lr_scheduler.LinearLR(optimizer, 0.25, total_iters=2)
    return lr_scheduler.SequentialLR(optimizer, [warm, milestones(optimizer)], [2])


def one_cycle(optimizer: torch.optim.Optimizer) -> LRScheduler:
    return lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=12)


@pytest.mark.parametrize("schedule", [milestones, warmed_up, one_cycle])
def test_an_optimiser_and_a_schedule_given_as_functions_go_on(
    schedule: Callable[[torch.optim.Optimizer], LRScheduler], quick: Quick, tmp_path: Path
) -> None:
    """Their states hold tables and nested states that JSON would turn into words."""
    from quickstudy.outer import RunFolder, meta_train

    rates: dict[str, list[float]] = {}

    def begin(name: str) -> dict[str, Any]:
        config = quick()
        splits = config.splits()
        path = tmp_path / name
        exists = (path / "config.json").exists()

        def noted(optimizer: torch.optim.Optimizer) -> LRScheduler:
            optimizer.register_step_pre_hook(
                lambda o, *_: rates.setdefault(name, []).append(o.param_groups[0]["lr"])
            )
            return schedule(optimizer)

        return {
            "learner": config.make_learner(splits.train.image_shape, 4),
            "tasks": config.training_tasks(splits.train),
            "optimizer": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
            "schedule": noted,
            "meta_batch": 2,
            "run": RunFolder.open(path) if exists else RunFolder.create(path, {}),
        }

    whole = begin("a")
    meta_train(**whole, iterations=10)
    for until in (3, 6):
        meta_train(**begin("b"), iterations=until)
    rest = begin("b")
    meta_train(**rest, iterations=10)
    assert len(set(rates["a"])) > 2
    assert rates["b"] == rates["a"]
    for name, value in whole["learner"].state_dict().items():
        assert torch.equal(rest["learner"].state_dict()[name], value), name
    assert json.loads(RunFolder(tmp_path / "b").path.joinpath("config.json").read_text()) == {"version": 1}


def test_a_checkpoint_that_was_removed_is_told(quick: Quick, tmp_path: Path) -> None:
    train(quick(), tmp_path)
    (tmp_path / "checkpoint.safetensors").unlink()
    before = stamps(tmp_path)["metrics.jsonl"]
    with pytest.raises(RunError, match=r"has no checkpoint\.safetensors to go on from"):
        train(quick(iterations=8), tmp_path, resume=True)
    assert stamps(tmp_path)["metrics.jsonl"] == before
