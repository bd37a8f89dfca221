from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import DataError
from quickstudy.tasks import ClassTasks, Query, Support, Task
from quickstudy.tasks.task import as_float, as_input


def test_uint8_becomes_a_fraction_and_floats_stay() -> None:
    x = torch.arange(256, dtype=torch.uint8)
    assert torch.allclose(as_float(x).double() * 255, torch.arange(256).double(), atol=1e-4)
    assert x.dtype == torch.uint8
    given = torch.rand(3, dtype=torch.float64)
    assert as_float(given) is given


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.int8, np.uint16, np.int64, np.uint64, np.float64, ">f4", ">i4", np.float16]
)
def test_inputs_of_any_type_are_float32(dtype: Any) -> None:
    values = np.arange(24).reshape(2, 1, 3, 4)
    given = values.astype(dtype)
    given.flags.writeable = False
    scale = 1 if given.dtype.kind == "f" else 255
    for x in (given, given[:, :, ::-1][:, :, ::-1], given.tolist()):
        found = as_input(x)
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found.numpy() * scale, values, rtol=1e-6)
    assert as_input(given, torch.float64).dtype == torch.float64


def test_vectors_of_whole_numbers_are_numbers_and_bools_are_0_and_1() -> None:
    assert as_input([[1, 300], [-2, 0]]).tolist() == [[1, 300], [-2, 0]]
    assert as_input(np.array([[[True, False]]])).tolist() == [[[1, 0]]]
    given = torch.rand(3, 2, dtype=torch.float64)
    assert as_input(given) is given


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (["a", "b"], "inputs: values of type <U1 are not numbers"),
        ([[1, 2], [3]], "not an array of numbers"),
        (object(), "type object are not numbers"),
        (np.zeros(2, np.complex64), "complex64 are not numbers"),
        (torch.zeros(2, dtype=torch.complex64), "complex64 values are not real"),
        (np.full((1, 2, 2), 256), "from 256 to 256 are not pixels"),
        (torch.full((1, 2, 2), -1), "from -1 to -1 are not pixels"),
        (None, "type object are not numbers"),
    ],
)
def test_nonsense_is_no_input(x: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        as_input(x)


def test_plain_tensors_become_a_support_set() -> None:
    support = Support.of(
        torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([1, 0, 2, 1], dtype=torch.int32)
    )
    assert support.way == support.ways == 3
    assert support.x.dtype == torch.float32
    assert support.y.dtype == torch.int64


def test_arrays_and_lists_become_a_support_set() -> None:
    support = Support.of(np.full((3, 1, 2, 2), 51), [True, False, True])
    assert (support.way, support.y.tolist()) == (2, [1, 0, 1])
    assert support.x.unique().tolist() == pytest.approx([0.2])
    support = Support.of(np.zeros((2, 1)), np.array([0.5, 1.0]))
    assert (support.x.dtype, support.y.dtype) == (torch.float32, torch.float32)


def test_real_targets_are_a_regression_and_get_a_column() -> None:
    support = Support.of(torch.zeros(3, 1), torch.tensor([0.5, 1.0, 2.0]))
    assert support.way is None
    assert support.y.shape == (3, 1)
    with pytest.raises(DataError, match="class labels"):
        _ = support.ways


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.zeros(3, 2), torch.tensor([0, 1]), "3 examples but 2 labels"),
        (torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), "no examples"),
        (torch.tensor([[0.0], [torch.nan]]), torch.tensor([0, 1]), "NaN or infinity"),
        (torch.tensor([[0.0], [torch.inf]]), torch.tensor([0, 1]), "NaN or infinity"),
        (torch.zeros(2, 1), torch.tensor([0.0, torch.nan]), "target is NaN"),
        (torch.zeros(2, 1), torch.tensor([-1, 0]), "label -1 is negative"),
        (torch.zeros(3, 1), torch.tensor([0, 3, 3]), "class 1 has no example"),
        (torch.zeros(2, 1), torch.tensor([[0, 1], [1, 0]]), r"labels of shape \(2, 2\)"),
        (torch.zeros(2, 1), torch.tensor(0), r"labels of shape \(\)"),
        (torch.tensor(1.0), torch.tensor([0]), r"examples of shape \(\)"),
        (torch.zeros(2), torch.tensor([0, 1]), r"examples of shape \(2,\); one row each"),
        (torch.zeros(4, 1), torch.tensor([0, 0, 1, 20_000_000]), "class 2 has no example .*to 20000000"),
        (torch.zeros(2, 1), ["cat", "dog"], "labels: values of type <U3 are not numbers; number the classes"),
        (["cat", "dog"], torch.tensor([0, 1]), "examples: values of type <U3 are not numbers"),
    ],
)
def test_a_bad_support_set_is_named(x: Any, y: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        Support.of(x, y)
    assert "\n" not in str(caught.value)


def padded_batch() -> Task:
    """Two tasks: 2-way 2-shot, and 1-way 1-shot padded to the same shape."""
    support = Support(
        torch.arange(8.0).reshape(2, 4, 1),
        torch.tensor([[0, 1, 0, 1], [0, 1, 0, 1]]),
        2,
        torch.tensor([[True] * 4, [True, False, False, False]]),
    )
    query = Query(
        torch.arange(4.0).reshape(2, 2, 1),
        torch.tensor([[0, 1], [0, 0]]),
        torch.tensor([[True, True], [False, True]]),
    )
    return Task(support, query, torch.tensor([[4, 9], [7, 2]]), {"noise": torch.arange(2.0)})


def test_unbatched_tasks_hold_no_padding() -> None:
    first, second = padded_batch().unbatch()
    assert not first.padded
    assert not second.padded
    assert (first.support.way, second.support.way) == (2, 1)
    assert second.support.x.tolist() == [[4.0]]
    assert second.support.y.tolist() == [0]
    assert second.query.x.tolist() == [[3.0]]
    assert second.query.y.tolist() == [0]
    assert second.classes is not None
    assert second.classes.tolist() == [7]
    assert second.extra["noise"].item() == 1.0


def test_tensors_and_with_tensors_are_a_round_trip(blobs: ClassDataset) -> None:
    for task in (padded_batch(), ClassTasks(blobs, 3, 1, query=2, unlabelled=2).batch(np.arange(2))):
        again = task.with_tensors(task.tensors())
        assert again.support.way == task.support.way
        assert again.tensors().keys() == task.tensors().keys()
        for name, tensor in task.tensors().items():
            assert again.tensors()[name] is tensor


def test_to_a_dtype_moves_floats_only() -> None:
    moved = padded_batch().to(torch.float64).tensors()
    for name, tensor in padded_batch().tensors().items():
        wanted = torch.float64 if tensor.is_floating_point() else tensor.dtype
        assert moved[name].dtype == wanted, name
        assert torch.equal(moved[name], tensor.to(wanted))
    assert moved.keys() == padded_batch().tensors().keys()
