"""The controls: with the learner's body, chosen on meta-validation, measured on the learner's tasks."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from collections.abc import Callable
from functools import partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from quickstudy.data import Splits
from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import RunError, UserError
from quickstudy.evaluation import Evaluation, evaluate, floors, floors_table
from quickstudy.evaluation.floors import as_solved, equal_pictures, kept_control
from quickstudy.learners import CONTROLS, build
from quickstudy.learners.pretrain import PretrainFinetune
from quickstudy.learners.scratch import Scratch
from quickstudy.outer import session
from quickstudy.outer.config import TrainConfig
from quickstudy.outer.meta_train import meta_train
from quickstudy.outer.run_folder import RunFolder
from quickstudy.tasks import ClassTasks, Task
from quickstudy.tasks.sampler import FrozenTasks

ROOM = "quickstudy.evaluation.floors"
CONFIG = TrainConfig(
    learner="maml",
    way=3,
    shot=1,
    query=2,
    iterations=6,
    channels=4,
    size=16,
    validate_every=3,
    validation_tasks=4,
    settings={"steps": 2},
    seed=7,
)
QUICK: dict[str, Any] = {"n_tasks": 8, "search_tasks": 2}


@pytest.fixture(scope="module")
def splits() -> Splits:
    """16 noisy classes of 6 pictures: 8, 4 and 4."""
    rng = np.random.default_rng(0)
    x = np.repeat(rng.uniform(0, 120, (16, 16, 16)), 6, 0) + rng.uniform(0, 130, (96, 16, 16))
    data = ClassDataset.from_arrays(x.astype(np.uint8), np.repeat(np.arange(16), 6), name="noisy")
    parts = [range(8), range(8, 12), range(12, 16)]
    return Splits(*(data.subset(list(p)) for p in parts))


@pytest.fixture
def source(splits: Splits) -> ClassTasks:
    return CONFIG.problem(splits.test, seed=2)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two settings of a few steps instead of six of up to fifty."""
    for kind in (Scratch, PretrainFinetune):
        few = [{"inner_lr": 0.01, "steps": steps} for steps in (1, 4)]
        monkeypatch.setattr(kind, "candidates", lambda self, few=few: [dict(s) for s in few])
        real = kind.__init__
        monkeypatch.setattr(kind, "__init__", partialmethod(real, steps=2))


Calls = list[tuple[tuple[Any, ...], dict[str, Any]]]


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Calls]:
    """`spy(name)`: the calls of a function that floors.py uses."""

    def watch(name: str) -> Calls:
        calls: Calls = []
        module = sys.modules[ROOM]
        real = getattr(module, name)

        def noted(*args: Any, **options: Any) -> Any:
            calls.append((args, options))
            return real(*args, **options)

        monkeypatch.setattr(module, name, noted)
        return calls

    return watch


def test_all_controls(splits: Splits, source: ClassTasks, spy: Callable[[str], Calls]) -> None:
    trained, chosen_on, measured_on = spy("meta_train"), spy("choose_settings"), spy("evaluate")
    rows = floors(CONFIG, splits, source=source, **QUICK)
    assert [row.name for row in rows] == list(CONTROLS)
    assert all(row.evaluation.tasks == 8 and row.seconds > 0 for row in rows)

    # One pretraining, on meta-train classes, validated on meta-validation classes.
    [((_, tasks), options)] = trained
    assert tasks.data is splits.train
    assert options["validation"].data is splits.val
    # As many pictures as MAML saw: 16 tasks of 3 ways, 1 shot and 5 queries in each of 6 meta-steps.
    pictures = 6 * 16 * 3 * (1 + 5)
    assert (options["iterations"], options["validate_every"]) == (pictures // 32, pictures // 32 // 2)
    # Chosen on meta-validation, measured on the very tasks the learner is measured on.
    assert all(args[1].data is splits.val for args, _ in chosen_on)
    assert all(args[1] is source for args, _ in measured_on)
    by_name = dict(zip(CONTROLS, (args[0] for args, _ in measured_on), strict=True))

    # The same initial body as the learner's; the pretrained ones share another.
    def body(learner: Any) -> dict[str, torch.Tensor]:
        return (learner.net if hasattr(learner, "net") else learner).body.state_dict()

    def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
        return all(torch.equal(v, b[k]) for k, v in a.items())

    fresh = body(CONFIG.make_learner(splits.train.image_shape, 8))
    assert same(body(by_name["untrained"]), fresh)
    assert same(body(by_name["scratch"]), fresh)
    assert same(body(by_name["pretrain-finetune"]), body(by_name["pretrain-centroid"]))
    assert not same(body(by_name["pretrain-centroid"]), fresh)

    # What was chosen is what was measured.
    for row in rows:
        assert all(getattr(by_name[row.name], k) == v for k, v in row.chosen.items())
    blur = rows[0].chosen
    alone = build("pixel-nn", torch.nn.Identity(), way=3, classes=8, settings=blur)
    assert rows[0].evaluation == evaluate(alone, source, 8)
    assert {row.name for row in rows if row.chosen} == {"pixel-nn", "scratch", "pretrain-finetune"}


def test_pretraining_keeps_the_body_of_the_best_validation(
    splits: Splits, source: ClassTasks, spy: Callable[[str], Calls]
) -> None:
    trained = spy("meta_train")
    [row] = floors(CONFIG, splits, source=source, names=["pretrain-centroid"], **QUICK)
    control = dataclasses.replace(CONFIG, learner="pretrain-centroid", settings={}, norm="running")
    by_hand = control.make_learner(splits.train.image_shape, 8)
    meta_train(
        by_hand,
        control.training_tasks(splits.train),
        validation=control.problem(splits.val),
        iterations=54,
        validate_every=27,
        validation_tasks=4,
        seed=7,
    )
    assert row.evaluation == evaluate(by_hand, source, 8)
    assert len(trained) == 1


class Watched(ClassTasks):
    """Notes how many tasks are asked for."""

    asked: list[int]

    def batch(self, indices: np.ndarray) -> Task:
        self.asked += list(indices)
        return super().batch(indices)


def test_meta_test_tasks_are_seen_once(splits: Splits) -> None:
    source = Watched(splits.test, 3, 1, 2, seed=2)
    object.__setattr__(source, "asked", [])
    floors(CONFIG, splits, source=source, names=["pixel-nn"], **QUICK)
    assert source.asked == [0, 1, *range(8)]  # two to tell the tasks by, then the measuring


def test_a_second_call_reads_what_the_first_kept(
    splits: Splits, source: ClassTasks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"names": ["pixel-nn", "pretrain-centroid"], "cache": tmp_path / "floors"}
    first = floors(CONFIG, splits, source=source, **QUICK, **options)

    def refuse(*args: Any, **options: Any) -> None:
        raise AssertionError("done again")

    # Other tasks: measured anew, but not pretrained anew.
    monkeypatch.setattr(sys.modules["quickstudy.outer.meta_train"], "estimate", refuse)
    wider = ClassTasks(splits.test, 4, 1, 2, seed=2)
    again = floors(CONFIG, splits, source=wider, **QUICK, **options)
    assert [row.evaluation.way for row in again] == [4, 4]
    ragged = ClassTasks(splits.test, 3, 1, 2, seed=2, frequency=True)
    floors(CONFIG, splits, source=ragged, **QUICK, **options)

    monkeypatch.setattr(sys.modules[ROOM], "evaluate", refuse)
    second = floors(CONFIG, splits, source=source, **QUICK, **options)
    assert [row.json() for row in second] == [row.json() for row in first]
    assert second[0].evaluation.calibration == first[0].evaluation.calibration
    with pytest.raises(AssertionError, match="done again"):  # another budget
        floors(CONFIG, splits, source=source, n_tasks=8, search_tasks=3, **options)
    with pytest.raises(AssertionError, match="done again"):  # another body
        floors(dataclasses.replace(CONFIG, channels=8), splits, source=source, **QUICK, **options)
    for path in (tmp_path / "floors").glob("pixel-nn-*.json"):
        path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(AssertionError, match="done again"):  # a damaged row
        floors(CONFIG, splits, source=source, **QUICK, **options)


def test_way_and_shot_may_vary_and_tasks_be_saved(splits: Splits, tmp_path: Path) -> None:
    drawn = ClassTasks(splits.test, (2, 4), (1, 2), 2, seed=2)
    drawn.save(tmp_path / "tasks.safetensors", 8)
    frozen = FrozenTasks(splits.test, tmp_path / "tasks.safetensors")
    names = ["untrained", "scratch"]
    a, b = (floors(CONFIG, splits, source=s, names=names, **QUICK) for s in (drawn, frozen))
    assert [r.evaluation.loss for r in a] == [r.evaluation.loss for r in b]
    assert all(r.chosen == s.chosen for r, s in zip(a, b, strict=True))


def test_too_few_validation_classes_for_the_test_way(splits: Splits, spy: Callable[[str], Calls]) -> None:
    few = Splits(splits.train, splits.val.subset([0, 1, 2]), splits.test)
    chosen_on = spy("choose_settings")
    [row] = floors(CONFIG, few, source=ClassTasks(few.test, 4, 1, 2), names=["scratch"], **QUICK)
    assert row.evaluation.way == 4
    assert chosen_on[0][0][1].way == 3  # as the run was validated


def test_users_mistakes(splits: Splits, source: ClassTasks, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="pixel-nm"):
        floors(CONFIG, splits, source=source, names=["scratch", "pixel-nm"])
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot make the folder"):
        floors(CONFIG, splits, source=source, cache=tmp_path / "file" / "floors")


def test_rows_as_json_and_as_a_table(splits: Splits, source: ClassTasks) -> None:
    rows = floors(CONFIG, splits, source=source, names=["pixel-nn", "untrained"], **QUICK)
    told = json.loads(json.dumps([row.json() for row in rows], allow_nan=False))
    assert told[0]["name"] == "pixel-nn"
    assert told[0]["accuracy"] == rows[0].evaluation.accuracy
    assert told[0]["chosen"] == rows[0].chosen
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(floors_table(rows, learner=("mine", Evaluation(0.987, 0.002, 0.1, 600, False, "support"))))
    text = console.export_text()
    assert f"{100 * (rows[0].evaluation.accuracy or 0):.1f} ±" in text
    assert f"blur {rows[0].chosen['blur']}" in text
    assert "98.7 ± 0.2 %" in text
    assert "non-transductive: support statistics" in text


def test_what_was_never_trained_keeps_its_own_statistics(splits: Splits, source: ClassTasks) -> None:
    """Its running averages are those of no data."""
    options = {**QUICK, "names": ["untrained", "pretrain-centroid"], "pretrain_iterations": 4}
    running = floors(CONFIG, splits, source=source, statistics="running", **options)
    support = floors(CONFIG, splits, source=source, statistics="support", **options)
    assert running[0].evaluation == support[0].evaluation
    assert running[0].evaluation.statistics == "support"
    assert running[1].evaluation.statistics == "running"
    assert running[1].evaluation.loss != support[1].evaluation.loss


@pytest.mark.parametrize(
    ("norm", "how"), [("support", "running"), ("batch", "batch"), ("running", "running")]
)
def test_pretrained_nets_answer_by_their_own_averages(
    norm: Any, how: str, splits: Splits, source: ClassTasks
) -> None:
    """But beside a transductive run they are transductive too."""
    config = dataclasses.replace(CONFIG, norm=norm)
    names = ("untrained", "pretrain-centroid")
    untrained, pretrained = floors(config, splits, source=source, names=names, **QUICK)
    assert untrained.evaluation.statistics == ("support" if norm == "running" else norm)
    assert pretrained.evaluation.statistics == how


def test_settings_are_chosen_on_tasks_drawn_alike(splits: Splits) -> None:
    source = ClassTasks(splits.test, (2, 3), (1, 2), query=2, seed=9, ragged=True, frequency=True)
    found = as_solved(CONFIG, splits, json.loads(json.dumps(source.describe())))
    assert found.data is splits.val
    assert {**found.describe(), "seed": 9} == {**source.describe(), "classes": 4, "seed": 9}
    beyond = ClassTasks(splits.test, 4, 1, query=2, unlabelled=3)
    assert as_solved(CONFIG, splits, {**beyond.describe(), "way": 9}).way == CONFIG.way


def test_the_folder_of_the_pretrained_body_tells_how_it_was_trained(
    splits: Splits, source: ClassTasks, spy: Callable[[str], Calls], tmp_path: Path
) -> None:
    trained = spy("meta_train")
    unusual = dataclasses.replace(CONFIG, optimizer="sgd", outer_lr=0.5, schedule="linear", clip=1.0)
    floors(unusual, splits, source=source, names=["pretrain-centroid"], cache=tmp_path, **QUICK)
    [(_, used)] = trained
    [folder] = tmp_path.glob("body-*")
    kept = json.loads((folder / "config.json").read_bytes())
    told = {name: kept[name] for name in used if name in kept}
    assert told == {name: used[name] for name in told}
    assert told.items() >= {"optimizer": "adam", "outer_lr": 1e-3, "meta_batch": 1, "clip": None}.items()
    assert (kept["learner"], kept["iterations"], kept["validate_every"]) == ("pretrain-centroid", 54, 27)


def test_as_many_pictures_as_the_learner_whatever_it_is(splits: Splits) -> None:
    """Of a learner that is pretrained itself, just as many steps; each of `meta_batch` batches."""
    for meta_batch in (1, 4):
        own = dataclasses.replace(CONFIG, learner="pretrain-centroid", settings={}, meta_batch=meta_batch)
        assert equal_pictures(own, splits) == 6 * meta_batch


def test_a_control_is_found_again_as_it_was_measured(tmp_path: Path) -> None:
    """By whoever has the run's folder: it answers the same tasks as when it was a floor."""
    config = dataclasses.replace(CONFIG, data="glyphs", samples_per_class=6)
    session.train(config, tmp_path / "run")
    run, names = RunFolder.open(tmp_path / "run"), ["scratch", "pretrain-finetune"]
    assert kept_control("pretrain-finetune", run, 3) is None
    splits = config.splits()
    source = config.problem(splits.test, seed=2)
    rows = floors(config, splits, source=source, names=names, cache=run.path / "floors", **QUICK)
    for row in rows:
        found = kept_control(row.name, run, 3)
        assert found is not None
        assert found[1].settings == row.chosen
        again = evaluate(found[0], source, QUICK["n_tasks"])
        assert (again.accuracy, again.loss) == (row.evaluation.accuracy, row.evaluation.loss)
    records = next((run.path / "floors").glob("body-*")) / "metrics.jsonl"
    records.write_text(records.read_text().splitlines()[0] + "\n")
    assert kept_control("pretrain-finetune", run, 3) is None  # its pretraining was interrupted
