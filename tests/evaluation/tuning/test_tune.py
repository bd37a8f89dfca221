"""The search: it finds better options, always the same, whatever stops it, with whoever shares it."""

from __future__ import annotations

import csv
import json
import statistics
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import InMemoryStorage

from quickstudy.data import digits
from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import RunError, UserError
from quickstudy.evaluation.tuning import Trial, Tuned, tune
from quickstudy.evaluation.tuning.claims import claimed
from quickstudy.outer import run_folder
from quickstudy.outer.config import TrainConfig
from quickstudy.outer.load_run import load_run
from quickstudy.outer.progress import NoProgress
from quickstudy.outer.session import train

USUAL = TrainConfig(
    data="digits",
    learner="maml",
    way=3,
    query=3,
    meta_batch=4,
    body="mlp",
    channels=16,
    size=8,
    iterations=15,
    validate_every=5,
    validation_tasks=20,
    strategy="vmap",
    threads=1,
)
POOR = replace(USUAL, outer_lr=1e-5, settings={"inner_lr": 0.004})
"""Both rates a hundredth of the usual ones."""
SPACE = {"outer_lr": (1e-5, 0.01), "inner_lr": (0.004, 4.0), "steps": (1, 5)}
ONE = {"outer_lr": (0.001, 0.1)}


@pytest.fixture(scope="module")
def data() -> ClassDataset:
    return digits(size=8).limit(40)


@pytest.fixture(scope="module", autouse=True)
def _no_commit() -> Iterator[None]:
    """Many runs are begun here: none asks git for the commit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_folder, "environment", dict)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data: ClassDataset, _no_commit: None) -> Tuned:
    """A search that nothing stopped, in a storage of optuna's."""
    out = tmp_path_factory.mktemp("searches") / "whole"
    return tune(POOR, out, SPACE, trials=20, data=data, storage=InMemoryStorage())


def same(a: Tuned, b: Tuned) -> bool:
    """Whether two searches tried the same, and saw the same, to the last bit."""

    def plain(found: Tuned) -> list[Trial]:
        return [replace(t, seconds=None) for t in found.trials]

    return plain(a) == plain(b)


def test_twenty_trials_from_a_poor_start_beat_the_defaults(
    whole: Tuned, data: ClassDataset, tmp_path: Path
) -> None:
    assert [t.number for t in whole.trials] == list(range(20))
    first = whole.trials[0]
    assert first.values == {"outer_lr": 1e-5, "inner_lr": 0.004, "steps": 1}
    default = train(USUAL, tmp_path / "default", data=data).best
    assert default is not None
    assert first.value is not None
    assert first.value < default < whole.best.value - 0.15
    # What it says of the best holds of a run with these options.
    again = train(whole.config, tmp_path / "again", data=data)
    assert again.best == whole.best.value
    curve = [(r["iteration"], r["val_accuracy"]) for r in again.records]
    assert curve == whole.best.curve
    assert again.records[again.best_iteration // 5 - 1]["val_accuracy_ci95"] == whole.best.ci95


def test_the_folder_keeps_the_best_run_and_all_numbers(whole: Tuned, data: ClassDataset) -> None:
    assert [p.name for p in whole.out.glob("trial-*")] == [whole.best.name]
    learner, config, run = load_run(whole.out / whole.best.name)
    assert run.finished
    assert (config.outer_lr, learner.steps) == (whole.config.outer_lr, whole.best.values["steps"])
    best = json.loads((whole.out / "best.json").read_text())
    assert (best["accuracy"], best["trial"]) == (whole.best.value, whole.best.number)
    assert best["complete"] + best["pruned"] == best["trials"] == 20
    assert json.loads((whole.out / "trials.json").read_text())[3]["values"] == whole.trials[3].values
    with (whole.out / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(r["outer_lr"]) for r in rows] == [t.values["outer_lr"] for t in whole.trials]
    assert sum(whole.importance.values()) == pytest.approx(1, abs=0.01)
    assert list(whole.importance.values()) == sorted(whole.importance.values(), reverse=True)


def test_what_is_hopeless_ends_early(whole: Tuned) -> None:
    """By the rule: after a quarter of the run, below the median of all that got that far before."""
    pruned = [t for t in whole.trials if t.outcome == "pruned"]
    assert pruned
    for t in pruned:
        step = t.curve[-1][0]
        assert step < 15
        before = [o for o in whole.trials[: t.number] if o.outcome == "complete"]
        others = [dict(o.curve)[step] for o in before]
        assert max(v for _, v in t.curve) <= statistics.median(others)
    assert all(t.curve[-1][0] == 15 for t in whole.trials if t.outcome == "complete")


class Killed(BaseException):
    """A process that ended, as far as what it leaves goes."""


class Killing(NoProgress):
    """Ends training after so many meta-steps."""

    def __init__(self, after: int) -> None:
        self.after = after

    def step(self, done: int, metrics: dict[str, float], tasks: int) -> None:
        if done == self.after:
            raise Killed


@pytest.mark.parametrize("after", [2, 7])
def test_a_search_that_was_killed_goes_on_as_if_not(data: ClassDataset, tmp_path: Path, after: int) -> None:
    whole = tune(POOR, tmp_path / "whole", SPACE, trials=6, data=data, storage=InMemoryStorage())
    out = tmp_path / "killed"
    shown: list[int] = []

    def killed_in_the_third(number: int, values: dict[str, Any]) -> Any:
        shown.append(number)
        return Killing(after) if number == 2 else None

    with pytest.raises(Killed):
        tune(POOR, out, SPACE, trials=6, data=data, show=killed_in_the_third)
    assert shown == [0, 1, 2]
    begun: list[int] = []

    class Noting(NoProgress):
        def begin(self, total: int, done: int) -> None:
            begun.append(done)

    found = tune(POOR, out, SPACE, trials=6, data=data, resume=True, show=lambda n, v: Noting())
    assert begun == [after // 5 * 5, 0, 0, 0]  # from the last checkpoint
    assert same(found, whole)
    assert tune(POOR, out, SPACE, trials=6, data=data, resume=True).trials == found.trials  # it is done


def test_what_may_change_and_what_not(data: ClassDataset, tmp_path: Path) -> None:
    def go(config: TrainConfig = USUAL, *, trials: int = 2, **more: Any) -> Tuned:
        options: dict[str, Any] = {"space": ONE, "data": data, **more}
        return tune(config, tmp_path / "a", trials=trials, **options)

    go()
    with pytest.raises(RunError, match=r"a exists already: .* --resume"):
        go()
    with pytest.raises(RunError, match="begun with shot=1, not 2"):
        go(replace(USUAL, shot=2), resume=True)
    with pytest.raises(RunError, match="begun with search="):
        go(space={"outer_lr": (0.001, 0.2)}, resume=True)
    with pytest.raises(RunError, match="begun with pruner=median, not none"):
        go(pruner="none", resume=True)
    with pytest.raises(RunError, match="begun with splits="):
        go(data=digits(size=8).limit(39), resume=True)
    assert [t.outcome for t in go(trials=3, resume=True).trials] == ["complete"] * 3
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").touch()
    with pytest.raises(RunError, match="is not a search's folder"):
        tune(USUAL, tmp_path / "b", data=data, resume=True)


def test_machines_share_a_storage(data: ClassDataset, tmp_path: Path) -> None:
    """Two folders, a journal; the second takes over where the first stopped, and both know all trials."""
    options: dict[str, Any] = {"space": SPACE, "storage": str(tmp_path / "journal.log"), "data": data}
    tune(USUAL, tmp_path / "a" / "s", trials=2, **options)
    with pytest.raises(RunError, match="a search named s is in the storage already"):
        tune(USUAL, tmp_path / "b" / "s", trials=4, **options)
    assert not (tmp_path / "b").exists()
    found = tune(USUAL, tmp_path / "b" / "s", trials=4, resume=True, **options)
    assert [t.number for t in found.trials] == [0, 1, 2, 3]
    kept = [p.name for p in (tmp_path / "a" / "s").glob("trial-*")]
    assert kept in (["trial-000"], ["trial-001"])
    alone = tune(USUAL, tmp_path / "c", SPACE, trials=4, data=data, storage=InMemoryStorage())
    assert same(found, alone)


def test_a_trial_of_another_process_is_left_alone(data: ClassDataset, tmp_path: Path) -> None:
    """While its process lives; the rest of the work is done meanwhile."""
    out, options = tmp_path / "a", {"space": ONE, "data": data}
    with pytest.raises(Killed):
        tune(USUAL, out, trials=3, show=lambda n, v: Killing(4) if n == 1 else None, **options)
    with claimed(out / ".trial-001.lock"):
        found = tune(USUAL, out, trials=3, resume=True, **options)
        assert [t.outcome for t in found.trials] == ["complete", "running", "complete"]
        assert (out / "trial-001").is_dir()
    found = tune(USUAL, out, trials=3, resume=True, **options)
    assert [t.outcome for t in found.trials] == ["complete"] * 3


def test_values_that_do_not_go_together_or_diverge(data: ClassDataset, tmp_path: Path) -> None:
    options: dict[str, Any] = {"data": data, "pruner": "none"}
    space = {"train_shot": [1, 60]}  # there are no 60 examples of a class
    found = tune(USUAL, tmp_path / "a", space, trials=4, **options, storage=InMemoryStorage())
    failed = [t for t in found.trials if t.outcome == "failed"]
    assert failed
    assert all(t.values == {"train_shot": 60} and "60" in (t.why or "") for t in failed)
    assert found.best.values == {"train_shot": 1}
    steep, rates = replace(USUAL, optimizer="sgd"), {"outer_lr": [0.01, 1e30]}
    found = tune(steep, tmp_path / "b", rates, trials=4, **options, storage=InMemoryStorage())
    wild = [t for t in found.trials if t.values["outer_lr"] == 1e30]
    assert wild
    assert all(t.outcome == "pruned" and "not a finite number" in (t.why or "") for t in wild)
    with pytest.raises(UserError, match=r"no trial came to its end: the .* is not a finite number"):
        tune(replace(steep, outer_lr=1e30), tmp_path / "c", {"outer_lr": [1e30, 1e31]}, trials=2, data=data)


def test_mistakes_leave_no_folder(data: ClassDataset, tmp_path: Path, monkeypatch: Any) -> None:
    out = tmp_path / "a"
    with pytest.raises(UserError, match="untrained is not meta-trained"):
        tune(replace(USUAL, learner="untrained", settings={}), out, data=data)
    with pytest.raises(UserError, match="trials must be at least 1"):
        tune(USUAL, out, trials=0, data=data)
    with pytest.raises(UserError, match="too few in a part for 9 ways"):
        tune(replace(USUAL, way=9), out, data=data)
    with pytest.raises(UserError, match="the storage cannot be used"):
        tune(USUAL, out, data=data, storage="nothing://here")
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"optuna is not installed: pip install 'quickstudy\[tune\]'"):
        tune(USUAL, out, data=data)
    assert not out.exists()


def test_by_halving(data: ClassDataset, tmp_path: Path) -> None:
    storage = InMemoryStorage()
    found = tune(USUAL, tmp_path / "a", SPACE, trials=8, data=data, pruner="hyperband", storage=storage)
    pruned = [t for t in found.trials if t.outcome == "pruned"]
    assert pruned
    assert len(found.ranked) + len(pruned) == 8
    assert all(t.curve[-1][0] < USUAL.iterations for t in pruned)


def test_a_value_outside_of_what_is_searched_is_told(data: ClassDataset, tmp_path: Path) -> None:
    told: list[str] = []
    space = {"inner_lr": (0.001, 0.01), "outer_lr": (1e-5, 0.01)}
    found = tune(USUAL, tmp_path / "a", space, trials=1, data=data, say=told.append)
    assert told[0] == "not among what is searched: inner_lr 0.4; the first trial draws it"
    assert found.best.values["outer_lr"] == USUAL.outer_lr
    assert 0.001 <= found.best.values["inner_lr"] <= 0.01
