from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.nets.relation import Relation

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("shape", [(4, 7, 7), (4, 5, 3), (4, 3, 3), (4, 2, 2), (4, 1, 1)])
def test_scores_are_those_of_each_pair_of_maps_on_top_of_each_other(shape: tuple[int, int, int]) -> None:
    net, relu = Relation(shape, "layer"), F.relu
    a, b = torch.randn(2, *shape), torch.randn(3, *shape)
    found = net(a, b)
    assert found.shape == (2, 3)

    def pooled(x: Tensor) -> Tensor:
        return F.max_pool2d(x, 2) if min(x.shape[2:]) > 1 else x

    for i in range(2):
        for j in range(3):
            x = torch.cat([a[i], b[j]])[None]
            if shape[1:] == (1, 1):
                x = relu(net.rest[0](net.first(x.flatten(1))))
                x = relu(net.rest[3](net.rest[2](x)))
            else:
                block = next(m for m in net.rest if hasattr(m, "conv"))
                x = pooled(relu(net.rest[0](net.first(x))))
                x = pooled(relu(block.norm(block.conv(x))))
            hidden, score = net.rest[-3], net.rest[-1]
            torch.testing.assert_close(found[i, j], score(relu(hidden(x.flatten(1))))[0, 0])
