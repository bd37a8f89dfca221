from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.errors import UserError
from quickstudy.nets import Moments, normalised_by, resnet
from quickstudy.nets.resnet import Residual

pytestmark = pytest.mark.usefixtures("float64")


def test_a_block_against_its_formula() -> None:
    block, x = Residual(2, 4, "batch"), torch.randn(3, 2, 6, 6)

    def bn(y: Tensor) -> Tensor:
        return F.batch_norm(y, None, None, training=True, eps=1e-5)  # scales 1, shifts 0 at the start

    a, b, c = (conv.weight for conv in block.convs)
    y = F.leaky_relu(bn(F.conv2d(x, a, padding=1)), 0.1)
    y = F.leaky_relu(bn(F.conv2d(y, b, padding=1)), 0.1)
    y = bn(F.conv2d(y, c, padding=1)) + bn(F.conv2d(x, block.skip.weight))
    wanted = F.max_pool2d(F.leaky_relu(y, 0.1), 2)
    for fused in (False, True):
        with normalised_by(Moments(fused=fused)) as seen:
            torch.testing.assert_close(block(x), wanted, rtol=1e-10, atol=1e-10)
        assert len(seen.seen) == 4


@pytest.mark.parametrize(("size", "colours"), [(28, 1), (8, 3), (5, 1)])
def test_features_is_the_width_that_comes_out(size: int, colours: int) -> None:
    net = resnet((4, 6, 8, 10), in_channels=colours)
    assert net(torch.randn(2, colours, size, size)).shape == (2, net.features)
    assert net.features == 10


def test_group_norm_looks_at_one_example_only() -> None:
    net, x = resnet((4, 8), norm="group"), torch.randn(4, 1, 12, 12)
    torch.testing.assert_close(net(x)[2:3], net(x[2:3]), rtol=1e-10, atol=1e-10)
    assert net.norm == "group"


@pytest.mark.parametrize("make", [lambda: resnet(()), lambda: resnet((8, 0))])
def test_nothing_makes_no_net(make: Callable[[], object]) -> None:
    with pytest.raises(UserError, match="resnet needs at least 1"):
        make()
