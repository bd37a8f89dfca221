from __future__ import annotations

import numpy as np
import pytest
import torch

from quickstudy.errors import TaskError
from quickstudy.tasks.copy import CopyTasks


def test_bits_are_fair_and_asked_for_again() -> None:
    task = CopyTasks(30, seed=2).batch(np.arange(40))
    assert task.support.x.shape == task.query.y.shape == (40, 30, 8)
    assert torch.equal(task.support.x, task.query.y)
    assert set(task.support.x.unique().tolist()) == {0.0, 1.0}
    assert abs(task.support.x.mean() - 0.5) < 0.02
    assert not task.query.x.any()


def test_a_task_is_a_function_of_its_number() -> None:
    source = CopyTasks((1, 20), group=4)
    together = source.batch(np.arange(8, 12))
    for t, index in enumerate(range(8, 12)):
        assert torch.equal(source.batch(np.array([index])).support.x[0], together.support.x[t])
    assert not torch.equal(together.support.x[0], together.support.x[1])
    assert not torch.equal(
        CopyTasks(5, seed=1).batch(np.arange(1)).support.x, CopyTasks(5).batch(np.arange(1)).support.x
    )


def lengths(source: CopyTasks, groups: range) -> list[int]:
    return [source.batch(np.array([4 * g])).support.x.shape[1] for g in groups]


def test_every_length_is_drawn_and_each_for_a_group() -> None:
    source = CopyTasks((2, 6), group=4)
    counts = np.bincount(lengths(source, range(500)), minlength=8)
    assert counts[[0, 1, 7]].tolist() == [0, 0, 0]
    assert counts[2:7].min() > 60
    with pytest.raises(TaskError, match="sequences of several lengths: ask for those of one group of 4"):
        source.batch(np.arange(400))


def test_lengths_grow() -> None:
    source = CopyTasks((1, 20), group=4, growing=4 * 200)
    assert max(lengths(source, range(10))) <= 2
    half, after = lengths(source, range(95, 105)), lengths(source, range(200, 400))
    assert 5 < max(half) <= 10
    assert max(after) == 20


def test_no_length_is_an_error() -> None:
    with pytest.raises(TaskError, match="length must be at least 1, not 0"):
        CopyTasks(0)
    with pytest.raises(TaskError, match="length runs from 5 to 2"):
        CopyTasks((5, 2))
