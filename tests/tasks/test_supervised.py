from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from quickstudy.data.dataset import ClassDataset
from quickstudy.tasks import SupervisedBatches


def uneven() -> ClassDataset:
    """Classes of 3, 1, 6 and 2 examples; the value of an example is 10 · class."""
    y = np.repeat(np.arange(4), [3, 1, 6, 2])
    x = np.broadcast_to((10 * y)[:, None, None].astype(np.uint8), (12, 4, 4))
    return ClassDataset.from_arrays(x, y)


def test_the_label_is_the_class_of_the_row() -> None:
    batch = SupervisedBatches(uneven(), size=50).batch(np.arange(3))
    assert batch.query.x.shape == (3, 50, 1, 4, 4)
    assert torch.equal((batch.query.x[..., 0, 0, 0] * 25.5).round().long(), batch.query.y)
    assert batch.support.x.shape == (3, 0, 1, 4, 4)
    assert batch.support.way == 4


def test_rows_are_drawn_evenly() -> None:
    y = SupervisedBatches(uneven(), size=400).batch(np.arange(10)).query.y
    seen = torch.bincount(y.reshape(-1), minlength=4).numpy()
    assert stats.chisquare(seen, np.array([3, 1, 6, 2]) / 12 * 4000).pvalue > 1e-4


@pytest.mark.usefixtures("chance_untouched")
def test_a_batch_is_a_function_of_seed_and_index() -> None:
    data = uneven()
    batch = SupervisedBatches(data, size=20, seed=1).batch(np.array([2, 5]))
    assert torch.equal(
        SupervisedBatches(data, size=20, seed=1).batch(np.array([5])).query.y[0], batch.query.y[1]
    )
    assert not torch.equal(batch.query.y[0], batch.query.y[1])
    assert not torch.equal(
        SupervisedBatches(data, size=20, seed=2).batch(np.array([2])).query.y[0], batch.query.y[0]
    )


def test_an_empty_class_has_no_label() -> None:
    data = uneven()
    keep = torch.tensor([0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11])
    data = data.rows(keep, torch.tensor([0, 3, 3, 9, 11]), data.names)
    batch = SupervisedBatches(data, size=100).batch(np.arange(3))
    assert set(batch.query.y.unique().tolist()) == {0, 2, 3}
    assert torch.equal((batch.query.x[..., 0, 0, 0] * 25.5).round().long(), batch.query.y)
