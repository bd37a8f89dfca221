from __future__ import annotations

import pytest
import torch

from quickstudy.nets.relation import Relation, pairs

pytestmark = pytest.mark.usefixtures("float64")


def test_pairs_are_each_with_each() -> None:
    a, b = torch.randn(3, 2, 4, 4), torch.randn(5, 2, 4, 4)
    found = pairs(a, b)
    assert found.shape == (15, 4, 4, 4)
    for i in range(3):
        for j in range(5):
            assert torch.equal(found[5 * i + j], torch.cat([a[i], b[j]]))


@pytest.mark.parametrize("shape", [(4, 7, 7), (4, 5, 3), (4, 2, 2), (4, 1, 1)])
def test_maps_of_any_size_are_compared(shape: tuple[int, int, int]) -> None:
    net = Relation(shape, "layer")
    a, b = torch.randn(2, *shape), torch.randn(3, *shape)
    assert net(pairs(a, b)).shape == (6, 1)
    assert not torch.allclose(net(pairs(a[:1], b[:1])), net(pairs(a[:1], b[1:2])))
