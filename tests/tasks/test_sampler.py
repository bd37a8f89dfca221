from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import TaskError
from quickstudy.tasks import ClassTasks, FrozenTasks, tasks

from .common import identical, numbered, rows


@st.composite
def sources(draw: st.DrawFn) -> ClassTasks:
    """Task sources of every kind that fit their data exactly or with room."""

    def count(least: int, most: int) -> Any:
        low = draw(st.integers(least, most))
        return (low, draw(st.integers(low, most))) if draw(st.booleans()) else low

    way, shot, query = count(2, 4), count(1, 4), count(1, 3)
    unlabelled = draw(st.integers(0, 2)) if isinstance(way, int) else 0
    distractors = draw(st.integers(0, 2)) if unlabelled else 0
    top = [v if isinstance(v, int) else v[1] for v in (way, shot, query)]
    labelled = draw(st.sampled_from([1.0, 0.5]))
    need = max(2 * (top[1] + top[2]), 2 * unlabelled) if labelled < 1 else top[1] + top[2] + unlabelled
    classes = draw(st.integers(top[0] + distractors, top[0] + distractors + 3))
    counts = draw(st.lists(st.integers(need, need + 5), min_size=classes, max_size=classes))
    return ClassTasks(
        numbered(counts), way, shot, query, seed=draw(st.integers(0, 2**40)), ragged=draw(st.booleans()),
        unlabelled=unlabelled, distractors=distractors, labelled=labelled, frequency=draw(st.booleans()),
    )  # fmt: skip


def within(value: int, allowed: Any) -> bool:
    low, high = (allowed, allowed) if isinstance(allowed, int) else allowed
    return low <= value <= high


@given(sources(), st.integers(0, 2**40))
def test_a_task_is_what_it_should_be(source: ClassTasks, first: int) -> None:
    owner = source.data.labels()
    for task in source.batch(np.arange(first, first + 3)).unbatch():
        support, query = task.support, task.query
        assert support.way is not None
        assert task.classes is not None
        assert within(support.way, source.way)
        assert len(task.classes) == support.way == len(task.classes.unique())

        # Rows come from the class their label stands for, and none twice.
        assert torch.equal(owner[rows(support.x)], task.classes[support.y])
        assert torch.equal(owner[rows(query.x)], task.classes[query.y])
        spare = [] if support.unlabelled is None else rows(support.unlabelled)
        drawn = rows(support.x) + rows(query.x) + spare
        assert len(set(drawn)) == len(drawn)

        shots = torch.bincount(support.y, minlength=support.way).tolist()
        queries = torch.bincount(query.y, minlength=support.way).tolist()
        assert all(within(k, source.shot) for k in shots)
        assert len(set(shots)) == 1 or source.ragged
        assert all(within(q, source.query) for q in queries)
        assert len(set(queries)) == 1

        # Where not all have labels, the first half of a class has.
        place = torch.arange(len(owner)) - source.data.offsets[owner]
        first = place < (source.data.counts * source.labelled).floor()[owner]
        assert first[rows(support.x) + rows(query.x)].all()
        assert source.labelled == 1 or not first[spare].any()

        assert len(spare) == source.unlabelled * (support.way + source.distractors)
        strangers = set(owner[spare].tolist()) - set(task.classes.tolist())
        assert len(strangers) == (source.distractors if source.unlabelled else 0)


@given(sources(), st.lists(st.integers(0, 2**40), min_size=1, max_size=5))
def test_a_task_is_a_function_of_seed_and_index(source: ClassTasks, indices: list[int]) -> None:
    together = list(source.batch(np.array(indices)).unbatch())
    backwards = list(source.batch(np.array(indices[::-1])).unbatch())[::-1]
    for i, task, again in zip(indices, together, backwards, strict=True):
        assert identical(task, again)
        assert identical(task, source.task(i))


@pytest.mark.usefixtures("chance_untouched")
def test_numpys_and_torchs_own_generators_are_untouched(blobs: ClassDataset) -> None:
    ClassTasks(blobs, 5, 1, seed=3).batch(np.arange(20))


def test_other_seeds_and_indices_give_other_tasks() -> None:
    data = numbered([20] * 30)
    drawn = {
        tuple(rows(ClassTasks(data, 5, 1, seed=seed).task(i).support.x))
        for seed in range(10)
        for i in range(10)
    }
    assert len(drawn) == 100


def test_classes_and_rows_are_drawn_evenly_and_places_tell_nothing() -> None:
    source = ClassTasks(numbered([12] * 10), 4, 2, query=3, seed=5)
    batch = source.batch(np.arange(3000))
    assert batch.classes is not None
    for place in range(4):  # every label is every class equally often
        assert stats.chisquare(np.bincount(batch.classes[:, place], minlength=10)).pvalue > 1e-4
    for x, y in ((batch.support.x, batch.support.y), (batch.query.x, batch.query.y)):
        assert stats.chisquare(np.bincount(x.long().flatten(), minlength=120)).pvalue > 1e-4
        for place in range(y.shape[1]):  # every place has every label equally often
            assert stats.chisquare(np.bincount(y[:, place], minlength=4)).pvalue > 1e-4


def test_queries_are_not_in_the_order_of_the_support_set() -> None:
    batch = ClassTasks(numbered([12] * 6), 5, 3, query=3).batch(np.arange(500))
    same = (batch.support.y == batch.query.y).double().mean()
    assert abs(float(same) - 1 / 5) < 0.03


def test_pairs_of_classes_are_drawn_evenly() -> None:
    """Without replacement: every unordered pair of 6 classes equally often."""
    batch = ClassTasks(numbered([4] * 6), 2, 1, query=1, seed=2).batch(np.arange(6000))
    assert batch.classes is not None
    a, b = batch.classes.sort(1).values.T.numpy()
    seen = np.bincount(a * 6 + b, minlength=36).reshape(6, 6)[np.triu_indices(6, 1)]
    assert seen.sum() == 6000
    assert stats.chisquare(seen).pvalue > 1e-4


def test_by_frequency_larger_classes_come_first_more_often() -> None:
    counts = np.array([4, 8, 16, 32])
    batch = ClassTasks(numbered(counts.tolist()), 2, 1, query=1, frequency=True).batch(np.arange(8000))
    assert batch.classes is not None
    first, second = batch.classes.T.numpy()
    p = counts / counts.sum()
    assert stats.chisquare(np.bincount(first, minlength=4), p * 8000).pvalue > 1e-4
    # The second is drawn in proportion among those left: P(i, j) = p_i p_j / (1 - p_i).
    joint = p[:, None] * p / (1 - p)[:, None]
    off = ~np.eye(4, dtype=bool)
    seen = np.bincount(first * 4 + second, minlength=16).reshape(4, 4)
    assert stats.chisquare(seen[off], joint[off] * 8000).pvalue > 1e-4


def test_ranges_are_drawn_evenly() -> None:
    source = ClassTasks(numbered([10] * 6), (2, 5), (1, 4), (1, 3), ragged=True)
    batch = source.batch(np.arange(2000))
    ways, shots, queries = [], [], []
    for task in batch.unbatch():
        assert task.support.way is not None
        ways.append(task.support.way)
        shots += torch.bincount(task.support.y).tolist()
        queries.append(int(torch.bincount(task.query.y)[0]))
    for seen, low, high in ((ways, 2, 5), (shots, 1, 4), (queries, 1, 3)):
        counts = np.bincount(seen, minlength=high + 1)
        assert counts[:low].sum() == 0
        assert stats.chisquare(counts[low:]).pvalue > 1e-4


def test_masks_mark_the_padding() -> None:
    batch = ClassTasks(numbered([10] * 6), (2, 5), (1, 3), query=2).batch(np.arange(50))
    assert batch.padded
    assert batch.support.mask is not None
    assert batch.support.mask.shape == (50, 15)
    for task, mask in zip(batch.unbatch(), batch.support.mask, strict=True):
        assert int(mask.sum()) == len(task.support.x)
    assert not ClassTasks(numbered([10] * 6), 5, 3).batch(np.arange(5)).padded


def test_pixels_are_fractions_and_floats_are_kept(blobs: ClassDataset) -> None:
    batch = ClassTasks(blobs, 3, 2, query=2).batch(np.arange(4))
    assert batch.support.x.dtype == torch.float32
    assert batch.support.x.shape == (4, 6, 1, 16, 16)
    assert 0 <= batch.support.x.min() < batch.support.x.max() <= 1
    scaled = (batch.support.x[0] * 255).round().to(torch.uint8)
    assert all((blobs.x == picture).flatten(1).all(1).any() for picture in scaled)


def test_default_query_is_fifteen_or_what_is_left() -> None:
    assert ClassTasks(numbered([40] * 5), 5, 5).query == 15
    assert ClassTasks(numbered([40, 9, 40, 40, 40]), 5, 5).query == 4
    assert ClassTasks(numbered([9] * 5), 3, (1, 5), unlabelled=2).query == 2


# -- errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"way": 7}, "numbered has 6 classes here: 7 ways are more"),
        ({"way": 5, "unlabelled": 1, "query": 1, "distractors": 2}, "5 ways and 2 distractor classes"),
        ({"way": 1}, "way must be at least 2, not 1"),
        ({"shot": 0}, "shot must be at least 1, not 0"),
        ({"query": 0}, "query must be at least 1, not 0"),
        ({"unlabelled": -1}, "unlabelled must be at least 0"),
        ({"unlabelled": (0, 1)}, "unlabelled must be one number"),
        ({"distractors": 2}, "distractors appear among unlabelled examples only"),
        ({"way": 3.0}, r"way must be a whole number or .*, not 3\.0"),
        ({"shot": "1"}, "shot must be a whole number or .*, not '1'"),
        ({"shot": (1, 2, 3)}, r"shot must be a whole number or .*, not \(1, 2, 3\)"),
        ({"shot": (3, 1)}, "shot runs from 3 to 1"),
        ({"shot": 4}, "class '2' has 4 examples, too few for 4 shots . 1 query"),
        ({"shot": 1, "query": 4}, "class '2' has 4 examples, too few for 1 shot . 4 queries"),
        ({"unlabelled": 2, "query": 2}, "class '2' has 4 examples, .* 2 unlabelled"),
        ({"way": (2, 4), "unlabelled": 1}, "one number of ways"),
        ({"labelled": 0.0}, r"labelled must be a share above 0 and at most 1, not 0\.0"),
        ({"labelled": 1.5}, r"labelled must be a share above 0 and at most 1, not 1\.5"),
        ({"labelled": 0.25}, r"class '0' has 1 example at labelled=0\.25, too few for 1 shot . 1 query"),
        (
            {"labelled": 0.5, "query": 1, "unlabelled": 3},
            r"class '2' has 2 examples at labelled=0\.5, .* 3 unl",
        ),
        ({"support_from": ("country", [1])}, "no attribute 'country' .it has: drawer"),
        ({"support_from": ("drawer", [0]), "query_from": ("drawer", [0, 1])}, "share 15 examples"),
        ({"support_from": ("drawer", [0]), "query_from": ("drawer", [7])}, "class '0' has 0 examples"),
    ],
)
def test_errors_name_the_class_and_the_count(options: dict[str, Any], message: str) -> None:
    counts = [5, 5, 4, 5, 5, 5]
    data = numbered(counts, {"drawer": np.arange(sum(counts)) % 2})
    with pytest.raises(TaskError, match=message) as caught:
        ClassTasks(data, **{"way": 3, "shot": 1, **options})
    assert "\n" not in str(caught.value)


def test_numpys_whole_numbers_are_whole_numbers(tmp_path: Path) -> None:
    data = numbered([9] * 6)
    count = np.array([2, 3, 4, 5])
    source = ClassTasks(
        data, count[1], (count[0], count[1]), query=count[0], seed=count[3], unlabelled=count[0]
    )
    assert (source.way, source.shot, source.query, source.unlabelled) == (3, (2, 3), 2, 2)
    assert json.loads(json.dumps(source.describe())) == {**source.describe(), "shot": [2, 3]}
    assert identical(source.task(7), ClassTasks(data, 3, (2, 3), query=2, seed=5, unlabelled=2).task(7))
    source.save(tmp_path / "set", 2)
    assert FrozenTasks(data, tmp_path / "set").describe()["way"] == 3


def test_no_classes_at_all_is_an_error() -> None:
    with pytest.raises(TaskError, match="no classes"):
        ClassTasks(numbered([3, 3]).subset([]), 2)


# -- pictures ---------------------------------------------------------------------------------------------


def test_rotated_classes_make_tasks_of_turned_pictures(blobs: ClassDataset) -> None:
    turned = blobs.rotated()
    task = ClassTasks(turned, 10, 1, query=2, seed=1).task(0)
    assert task.classes is not None
    for picture, label in zip(task.query.x, task.query.y, strict=True):
        quarter, original = divmod(int(task.classes[label]), len(blobs))
        back = (torch.rot90(picture, -quarter, (-2, -1)) * 255).round().to(torch.uint8)
        assert (blobs.examples(original) == back).flatten(1).all(1).any()


def test_the_short_name_and_the_description(blobs: ClassDataset) -> None:
    source = tasks(blobs, way=3, shot=2, seed=4)
    assert identical(source.task(1), ClassTasks(blobs, 3, 2, seed=4).task(1))
    assert source.describe() == {
        "data": "blobs", "classes": 8, "way": 3, "shot": 2, "query": 15, "seed": 4,
    }  # fmt: skip
    unusual = {"ragged": True, "frequency": True, "unlabelled": 1, "distractors": 2}
    assert tasks(blobs, way=3, shot=(1, 2), **unusual).describe().items() >= unusual.items()
