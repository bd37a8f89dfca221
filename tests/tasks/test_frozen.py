"""Saved evaluation sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from quickstudy.errors import DataError, RunError, TaskError
from quickstudy.tasks import ClassTasks, FrozenTasks
from quickstudy.tasks.rows import Draw

from .common import identical, numbered


@pytest.mark.parametrize(
    "options",
    [{"way": 4, "shot": 2}, {"way": (2, 4), "shot": (1, 3)}, {"way": 3, "shot": 1, "unlabelled": 2}],
)
def test_a_saved_evaluation_set_gives_the_same_tasks(tmp_path: Path, options: dict[str, Any]) -> None:
    data = numbered([9] * 6)
    source = ClassTasks(data, query=2, seed=8, **options)
    source.save(tmp_path / "set.safetensors", 12)
    frozen = FrozenTasks(data, tmp_path / "set.safetensors")
    assert len(frozen) == 12
    assert [p.name for p in tmp_path.iterdir()] == ["set.safetensors"]
    ours, theirs = source.batch(np.arange(12)), frozen.batch(np.arange(12))
    for a, b in zip(ours.unbatch(), theirs.unbatch(), strict=True):
        assert identical(a, b)
    assert identical(next(frozen.batch(np.array([7])).unbatch()), source.task(7))
    assert frozen.describe()["seed"] == 8
    assert identical(frozen.task(7), source.task(7))
    for index in (12, -1):
        with pytest.raises(TaskError, match=f"holds 12 tasks; task {index}"):
            frozen.batch(np.array([3, index]))
    with pytest.raises(TaskError, match="0 tasks to save"):
        source.save(tmp_path / "none", 0)
    with pytest.raises(RunError, match="cannot write"):
        source.save(tmp_path / "none" / "set", 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [("support", 54), ("query", 54), ("query", -2), ("support_y", 3), ("classes", 6), ("unlabelled", 54)],
)
def test_a_saved_set_that_goes_beyond_its_data(tmp_path: Path, name: str, value: int) -> None:
    data, path = numbered([9] * 6), tmp_path / "set"
    ClassTasks(data, 3, 1, query=2, unlabelled=1).save(path, 4)
    with safe_open(path, "numpy") as file:
        meta, arrays = file.metadata(), {k: file.get_tensor(k) for k in Draw._fields}
    damaged = {k: v.copy() for k, v in arrays.items()}
    damaged[name][2, 0] = value
    short = arrays | {name: arrays[name][:3]}
    for content in (damaged, short):
        save_file(content, path, meta)
        with pytest.raises(DataError, match=r"set: damaged, its \w+ goes beyond the data"):
            FrozenTasks(data, path).task(0)
    for key in ("fingerprint", "way_max"):
        kept = {k: v for k, v in json.loads(meta["quickstudy"]).items() if k != key}
        save_file(arrays, path, {"quickstudy": json.dumps(kept)})
        with pytest.raises(DataError, match=f"not a saved set of tasks .*{key}"):
            len(FrozenTasks(data, path))


def test_a_saved_set_refuses_other_data_and_other_files(tmp_path: Path) -> None:
    path = tmp_path / "set.safetensors"
    ClassTasks(numbered([9] * 6), 3, 1).save(path, 3)
    for other in (numbered([9] * 7), numbered([9] * 6).subset([1, 0, 2, 3, 4, 5])):
        with pytest.raises(DataError, match="other data"):
            FrozenTasks(other, path).batch(np.arange(2))
    for content in (b"", b"no safetensors", path.read_bytes()[:100]):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(DataError, match="not a saved set of tasks"):
            FrozenTasks(numbered([9] * 6), tmp_path / "bad").batch(np.arange(2))
    with pytest.raises(DataError, match="not a saved set of tasks"):
        FrozenTasks(numbered([9] * 6), tmp_path / "missing").batch(np.arange(2))
