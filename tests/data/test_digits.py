from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from quickstudy.data.digits import digits


def test_every_pixel_of_the_source_is_there() -> None:
    data = digits(size=8)
    source = load_digits()
    assert data.names == tuple("0123456789")
    assert len(data.x) == 1797
    for c in range(10):
        expected = np.rint(source.images[source.target == c] * 255 / 16)
        np.testing.assert_array_equal(data.examples(c)[:, 0].numpy(), expected)


def test_split_is_disjoint_and_complete() -> None:
    parts = digits().split()
    assert [len(p) for p in parts] == [4, 3, 3]
    assert sorted(name for p in parts for name in p.names) == list("0123456789")


@pytest.mark.parametrize("size", [4, 8, 28])
def test_sizes_keep_the_mean_brightness(size: int) -> None:
    data = digits(size=size)
    assert data.image_shape == (1, size, size)
    assert data.x.float().mean().item() == pytest.approx(load_digits().images.mean() * 255 / 16, abs=3)
