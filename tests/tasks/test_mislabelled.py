from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import TaskError
from quickstudy.tasks import ClassTasks, LongTailed, Mislabelled, Sinusoids
from quickstudy.tasks.long_tailed import tail

DATA = ClassDataset.from_arrays(
    np.arange(240 * 4, dtype=np.int64).reshape(240, 2, 2) % 251, np.arange(240) % 8
)


@settings(deadline=None)
@given(st.integers(2, 6), st.integers(1, 10), st.floats(0, 0.99), st.integers(0, 5))
def test_a_share_of_each_class_is_wrong(way: int, shot: int, share: float, seed: int) -> None:
    tasks = ClassTasks(DATA, way, shot, 2, seed=1)
    found = Mislabelled(tasks, share, seed).batch(np.arange(3))
    plain = tasks.batch(np.arange(3))
    for name, value in plain.tensors().items():
        if name != "support.y":
            assert torch.equal(found.tensors()[name], value)
    for mine, right in zip(found.support.y, plain.support.y, strict=True):
        for c in range(way):
            assert int((mine[right == c] != c).sum()) == int(share * shot + 1e-9)
        assert int(mine.min()) >= 0
        assert int(mine.max()) < way


def test_any_other_class_is_as_likely() -> None:
    tasks = ClassTasks(DATA, 4, 10, 1)
    wrong = Mislabelled(tasks, 0.5).batch(np.arange(300)).support.y
    step = (wrong - tasks.batch(np.arange(300)).support.y) % 4
    counts = step.flatten().bincount(minlength=4)
    assert counts[0] == 300 * 20
    expected, deviation = 2000, (6000 * (1 / 3) * (2 / 3)) ** 0.5
    assert ((counts[1:] - expected).abs() < 4 * deviation).all()


def test_a_task_does_not_depend_on_its_neighbours() -> None:
    for tasks in (Mislabelled(ClassTasks(DATA, 4, 5)), LongTailed(ClassTasks(DATA, 4, 5))):
        together, alone = tasks.batch(np.array([3, 8])), tasks.batch(np.array([8]))
        for name, value in alone.tensors().items():
            assert torch.equal(together.tensors()[name][1:], value)


def test_tails() -> None:
    assert tail(10, 5) == [10, 6, 3, 2, 1]
    assert tail(8, 4) == [8, 4, 2, 1]
    assert tail(1, 3) == [1, 1, 1]


def test_long_tail_of_each_task() -> None:
    tasks = LongTailed(ClassTasks(DATA, 5, 10, 2))
    frequent = set()
    for task in tasks.batch(np.arange(20)).unbatch():
        counts = task.support.y.bincount().tolist()
        assert sorted(counts) == [1, 2, 3, 6, 10]
        assert task.query.y.bincount().tolist() == [2] * 5
        frequent.add(counts.index(10))
    assert len(frequent) > 2
    assert tasks.describe()["long_tailed"] is True


def test_what_cannot_be() -> None:
    with pytest.raises(TaskError, match="below 1, not 1"):
        Mislabelled(ClassTasks(DATA), 1)
    for source in (Sinusoids(), ClassTasks(DATA, (2, 5))):
        with pytest.raises(TaskError, match="class labels, can be"):
            Mislabelled(source).batch(np.arange(2))
        with pytest.raises(TaskError, match="class labels, can be"):
            LongTailed(source).batch(np.arange(2))
