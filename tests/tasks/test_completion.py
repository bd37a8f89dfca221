from __future__ import annotations

import numpy as np
import pytest
import torch

from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import TaskError
from quickstudy.tasks import Completion


@pytest.fixture
def pictures() -> ClassDataset:
    """8 pictures of 2 channels, 3 rows and 5 columns, no two pixels alike."""
    x = np.random.default_rng(0).permutation(240).reshape(8, 2, 3, 5).astype(np.uint8)
    return ClassDataset.from_arrays(x, np.arange(8) % 2, name="pictures")


def test_each_place_has_its_pixels_value(pictures: ClassDataset) -> None:
    for i in range(6):
        task = Completion(pictures, shot=5, query=6, seed=1).task(i)
        owners = []
        for x, y in ((task.support.x, task.support.y), (task.query.x, task.query.y)):
            rows, columns = ((x + 1) / 2 * torch.tensor([2, 4])).round().long().T
            values = (y * 255).round().long()
            seen = zip(rows, columns, values, strict=True)
            owners.append([(pictures.x[:, :, r, c] == v).all(1) for r, c, v in seen])
        same = torch.stack([*owners[0], *owners[1]]).all(0)
        assert same.sum() == 1  # one picture has all these values at these places
        seen = torch.cat([task.support.x, task.query.x])
        assert len(seen.unique(dim=0)) == 11  # support and query share no pixel


def test_every_pixel_in_order_where_no_number_is_asked(pictures: ClassDataset) -> None:
    task = Completion(pictures, shot=4).task(0)
    picture = (task.query.y * 255).round().to(torch.uint8).T.reshape(2, 3, 5)
    assert (pictures.x == picture).flatten(1).all(1).sum() == 1
    assert task.query.x[0].tolist() == [-1, -1]
    assert task.query.x[4].tolist() == [-1, 1]
    assert task.query.x[-1].tolist() == [1, 1]


def test_all_pictures_and_all_pixels_are_drawn(pictures: ClassDataset) -> None:
    batch = Completion(pictures, shot=2, query=None).batch(np.arange(200))
    assert len(batch.query.y.unique(dim=0)) == 8
    assert len(batch.support.x.flatten(0, 1).unique(dim=0)) == 15


def test_a_task_is_a_function_of_its_index_alone(pictures: ClassDataset) -> None:
    source = Completion(pictures, shot=3, query=4, seed=9)
    alone, batch = source.task(7), source.batch(np.array([1, 7]))
    assert torch.equal(alone.support.x, batch.support.x[1])
    assert torch.equal(alone.query.y, batch.query.y[1])
    assert batch.support.way is None


def test_what_cannot_be_completed_is_told(pictures: ClassDataset) -> None:
    with pytest.raises(TaskError, match="pictures: pictures of 3×5 have fewer than 16 pixels"):
        Completion(pictures, shot=8, query=8)
    with pytest.raises(TaskError, match="shot must be at least 1"):
        Completion(pictures, shot=0)
    with pytest.raises(TaskError, match="query must be one number of pixels"):
        Completion(pictures, query=(1, 2))
    points = ClassDataset.from_arrays(np.zeros((4, 3), np.float32), np.arange(4) % 2, name="points")
    with pytest.raises(TaskError, match="points has no pictures here to complete"):
        Completion(points)


def test_describe(pictures: ClassDataset) -> None:
    told = Completion(pictures, shot=3).describe()
    assert told == {"data": "pictures", "shot": 3, "query": 15, "seed": 0}
