"""Environments: support and query from examples with other attributes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import DataError
from quickstudy.tasks import ClassTasks
from quickstudy.tasks.rows import Rows

from .common import identical, numbered, rows


@settings(max_examples=60)
@given(st.lists(st.lists(st.integers(0, 2), max_size=6), min_size=1, max_size=6), st.sets(st.integers(0, 2)))
def test_environment_tables_against_a_loop(values: list[list[int]], wanted: set[int]) -> None:
    """Also with classes that are empty, at the start, in the middle and at the end."""
    flat = [v for c in values for v in c]
    offsets = np.concatenate([[0], np.cumsum([len(c) for c in values])]).astype(np.int64)
    data = ClassDataset(
        torch.zeros(len(flat), 1), torch.from_numpy(offsets), tuple(map(str, range(len(values)))),
        {"drawer": torch.tensor(flat, dtype=torch.int64)},
    )  # fmt: skip
    table = Rows.of(data, ("drawer", sorted(wanted)))
    expected = [
        [int(offsets[c]) + i for i, v in enumerate(row) if v in wanted] for c, row in enumerate(values)
    ]
    assert table.counts.tolist() == [len(e) for e in expected]
    assert table.rows.tolist() == [r for rows in expected for r in rows]


def test_support_and_query_from_different_environments() -> None:
    drawer = np.tile([0, 1, 2, 0, 1, 2, 0, 1], 5)
    data = numbered([8] * 5, {"drawer": drawer})
    source = ClassTasks(data, 3, 2, query=2, support_from=("drawer", [0]), query_from=("drawer", [1, 2]))
    for task in source.batch(np.arange(30)).unbatch():
        assert set(drawer[rows(task.support.x)]) == {0}
        assert set(drawer[rows(task.query.x)]) <= {1, 2}
        assert task.classes is not None
        assert torch.equal(data.labels()[rows(task.query.x)], task.classes[task.query.y])
    assert ClassTasks(data, 3, 2, support_from=("drawer", [0]), query_from=("drawer", [1])).query == 3


@pytest.mark.parametrize("given", ["support_from", "query_from"])
def test_of_one_environment_alone_the_other_is_the_rest(given: str) -> None:
    data = numbered([12] * 4, {"drawer": np.arange(48) % 3})
    one, other = ("support_from", "query_from") if given == "support_from" else ("query_from", "support_from")
    alone = ClassTasks(data, 3, 2, query=2, **{one: ("drawer", [0])})
    both = ClassTasks(data, 3, 2, query=2, **{one: ("drawer", [0]), other: ("drawer", [1, 2])})
    assert identical(alone.batch(np.arange(5)), both.batch(np.arange(5)))


@pytest.mark.parametrize("values", [[0, 1], range(2), np.arange(2), torch.arange(2)])
def test_values_of_an_environment_are_told_as_json(values: Any) -> None:
    source = ClassTasks(numbered([12] * 4, {"drawer": np.arange(48) % 3}), 3, support_from=("drawer", values))
    assert json.loads(json.dumps(source.describe()))["support_from"] == ["drawer", [0, 1]]


def test_values_of_an_environment_are_numbers() -> None:
    data = numbered([4, 4, 4], {"drawer": np.arange(12) % 2})
    with pytest.raises(DataError, match="values of 'drawer': values of type <U2 are not numbers"):
        ClassTasks(data, 2, support_from=("drawer", ["US"]))
