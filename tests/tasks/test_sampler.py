from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file
from scipy import stats

from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import DataError, RunError, TaskError
from quickstudy.tasks import ClassTasks, FrozenTasks, Task, tasks
from quickstudy.tasks.rows import Draw, Rows


def numbered(counts: list[int], attributes: dict[str, Any] | None = None) -> ClassDataset:
    """Class c has counts[c] examples `[1]`, each its own row number, so that a task tells what it drew."""
    m = sum(counts)
    return ClassDataset.from_arrays(
        np.arange(m, dtype=np.float32)[:, None],
        np.repeat(np.arange(len(counts)), counts),
        attributes=attributes,
        name="numbered",
    )


def rows(x: torch.Tensor) -> list[int]:
    return x[:, 0].long().tolist()


def identical(a: Task, b: Task) -> bool:
    left, right = a.tensors(), b.tensors()
    return (
        left.keys() == right.keys()
        and a.support.way == b.support.way
        and all(torch.equal(left[k], right[k]) for k in left)
    )


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
    need = top[1] + top[2] + unlabelled
    classes = draw(st.integers(top[0] + distractors, top[0] + distractors + 3))
    counts = draw(st.lists(st.integers(need, need + 5), min_size=classes, max_size=classes))
    return ClassTasks(
        numbered(counts), way, shot, query, seed=draw(st.integers(0, 2**40)), ragged=draw(st.booleans()),
        unlabelled=unlabelled, distractors=distractors, frequency=draw(st.booleans()),
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


def test_numpys_and_torchs_own_generators_are_untouched(blobs: ClassDataset) -> None:
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    ClassTasks(blobs, 5, 1, seed=3).batch(np.arange(20))
    assert (np.random.get_state()[1] == before[0]).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])


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


# -- environments -----------------------------------------------------------------------------------------


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


def test_values_of_an_environment_are_numbers() -> None:
    data = numbered([4, 4, 4], {"drawer": np.arange(12) % 2})
    with pytest.raises(DataError, match="values of 'drawer': values of type <U2 are not numbers"):
        ClassTasks(data, 2, support_from=("drawer", ["US"]))


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


# -- saved evaluation sets --------------------------------------------------------------------------------


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
