"""By which strategy a run goes: chosen, compiled, agreed on, noted and replayed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import RunError
from quickstudy.inner import compiled as module
from quickstudy.inner.choice import LONG  # of some operations each
from quickstudy.learners import MAML, ProtoNet
from quickstudy.nets import conv4, mlp, native
from quickstudy.outer import meta_train
from quickstudy.outer.config import TrainConfig
from quickstudy.outer.load_run import load_run
from quickstudy.outer.session import train
from quickstudy.outer.strategy import settle_strategy
from quickstudy.tasks import ClassTasks

Quick = Callable[..., TrainConfig]
Together = Callable[..., list[Any]]


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be compiled runs operation by operation."""
    monkeypatch.setattr(module, "compiled", lambda graph, inputs: graph)


def learner() -> MAML:
    return MAML(mlp(256, (4,)), way=3, steps=1)


def tasks(blobs: ClassDataset) -> ClassTasks:
    return ClassTasks(blobs, way=3, shot=1, query=2)


@pytest.mark.usefixtures("graphs")
def test_a_long_run_is_compiled_and_a_short_one_is_not(blobs: ClassDataset) -> None:
    said: list[str] = []
    assert settle_strategy(learner(), tasks(blobs), 3, "auto", 1000, say=said.append) == "vmap"
    assert not said
    assert settle_strategy(learner(), tasks(blobs), 3, "auto", LONG, say=said.append) == "compile"
    assert len(said) == 2
    assert said[1].startswith("compiled in ")
    assert settle_strategy(learner(), tasks(blobs), 3, "loop", LONG) == "loop"


@pytest.mark.usefixtures("graphs")
def test_what_native_kernels_compute_is_not_compiled(blobs: ClassDataset) -> None:
    if not native.build():
        pytest.skip("no C compiler")
    body = conv4(4, size=16)
    assert settle_strategy(MAML(body, way=3, steps=1), tasks(blobs), 3, "auto", LONG) == "vmap"


@pytest.mark.usefixtures("graphs")
@pytest.mark.parametrize(("learner", "wanted"), [(MAML, "vmap"), (ProtoNet, "compile")])
def test_convolutions_are_compiled_where_tasks_share_their_weights(
    blobs: ClassDataset, learner: Any, wanted: str
) -> None:
    body = conv4(4, size=16, norm="group")  # which no native kernel serves
    made = learner(body, **({"way": 3, "steps": 2} if learner is MAML else {}))
    assert settle_strategy(made, tasks(blobs), 3, "auto", LONG) == wanted


@pytest.mark.usefixtures("graphs")
def test_a_long_run_of_what_cannot_be_compiled_goes_by_vmap(blobs: ClassDataset) -> None:
    body: Any = nn.Sequential(nn.Flatten(), nn.Linear(256, 4), nn.Dropout(0.5))
    body.features = 4
    assert settle_strategy(MAML(body, way=3, steps=1), tasks(blobs), 3, "auto", LONG) == "vmap"


def test_all_processes_go_by_the_firsts_choice(blobs: ClassDataset, together: Together) -> None:
    def work(rank: int) -> str:  # the last one's share is a single task, which alone would be a loop's
        return settle_strategy(learner(), tasks(blobs), 3, "auto", 10)

    assert together(2, work) == ["vmap", "vmap"]


@pytest.mark.usefixtures("graphs")
def test_a_compiled_run_goes_on_compiled(quick: Quick, tmp_path: Path) -> None:
    config = quick(strategy="compile", iterations=4, schedule="constant")
    train(config, tmp_path / "whole")
    train(replace(config, iterations=2), tmp_path / "parted")
    said: list[str] = []
    train(replace(config, strategy=None), tmp_path / "parted", resume=True, say=said.append)
    assert any("tasks by strategy compile" in line for line in said)
    whole, parted = (load_run(tmp_path / name)[0].state_dict() for name in ("whole", "parted"))
    torch.testing.assert_close(whole, parted, rtol=0, atol=0)


def test_a_run_that_could_not_be_compiled_goes_on_by_vmap(
    quick: Quick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "compiled", None)  # which cannot be called
    train(quick(strategy="compile", iterations=2), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["strategy"] == "vmap"
    assert train(quick(strategy="compile", iterations=4), tmp_path, resume=True).iteration == 4


def test_a_compiled_run_that_goes_on_without_a_compiler_says_so(
    quick: Quick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "compiled", lambda graph, inputs: graph)
    train(quick(strategy="compile", iterations=2), tmp_path)
    monkeypatch.setattr(module, "compiled", None)
    said: list[str] = []
    train(quick(iterations=4), tmp_path, resume=True, say=said.append)
    assert "begun with compiled meta-steps, this run goes on without: not bit for bit" in said


def test_a_run_from_python_notes_its_strategy_and_replays_it(blobs: ClassDataset, tmp_path: Path) -> None:
    def go(iterations: int, **options: Any) -> None:
        torch.manual_seed(0)
        meta_train(learner(), tasks(blobs), iterations=iterations, meta_batch=2, run=tmp_path, **options)

    go(1, strategy="loop")
    go(2)  # auto alone would have chosen vmap
    assert json.loads((tmp_path / "config.json").read_text())["strategy"] == "loop"
    with pytest.raises(RunError, match="begun with strategy=loop, not vmap"):
        go(3, strategy="vmap")


def test_choosing_leaves_the_learner_as_it_was(blobs: ClassDataset) -> None:
    one = learner().eval()
    before = {k: v.clone() for k, v in one.state_dict().items()}
    settle_strategy(one, tasks(blobs), 3, "auto", 10)
    assert not one.training
    assert all(np.array_equal(v, before[k]) for k, v in one.state_dict().items())


def test_a_run_that_noted_no_strategy_is_not_said_to_be_of_compiled_ones(
    quick: Quick, tmp_path: Path
) -> None:
    train(quick(iterations=2), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["strategy"]  # as the first runs
    (tmp_path / "config.json").write_text(json.dumps(config))
    said: list[str] = []
    train(quick(iterations=4), tmp_path, resume=True, say=said.append)
    assert not any("compiled" in line for line in said)
