"""TensorBoard shows what metrics.jsonl holds, once, also of a run that was gone on with."""

from __future__ import annotations

import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from quickstudy.errors import UserError
from quickstudy.outer.config import TrainConfig
from quickstudy.outer.run_folder import RunFolder
from quickstudy.outer.session import train
from quickstudy.outer.tracking import tensorboard


def scalars(run: RunFolder) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_event_files_hold_the_records_of_a_resumed_run_once(tmp_path):
    run = RunFolder(tmp_path / "a")
    for iterations in (2, 4):
        config = TrainConfig(
            data="digits",
            learner="protonet",
            way=3,
            train_way=3,
            channels=4,
            iterations=iterations,
            validate_every=1,
            validation_tasks=2,
            threads=1,
        )
        train(config, run.path, resume=True, log=tensorboard(run))
    found, records = scalars(run), list(run.records())
    assert [r["iteration"] for r in records] == [1, 2, 3, 4]
    for kind in ("loss", "accuracy"):
        for part in ("train", "val"):
            wanted = [(r["iteration"], pytest.approx(r[f"{part}_{kind}"])) for r in records]
            assert found[f"{kind}/{part}"] == wanted


def test_without_tensorboard_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match=r"pip install 'quickstudy\[track\]'"):
        tensorboard(RunFolder(tmp_path))
