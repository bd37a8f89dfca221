from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from quickstudy.errors import UserError
from quickstudy.nets import BatchNorm, mlp

pytestmark = pytest.mark.usefixtures("float64")


def test_it_is_linear_and_relu_in_turn() -> None:
    net, x = mlp(6, (5, 4)), torch.randn(3, 2, 3)
    first, second = [m for m in net if isinstance(m, nn.Linear)]
    hidden = (x.reshape(3, 6) @ first.weight.T + first.bias).clamp(min=0)
    torch.testing.assert_close(net(x), (hidden @ second.weight.T + second.bias).clamp(min=0))
    assert net.features == 4


def test_sinusoid_net_of_the_maml_paper() -> None:
    assert sum(p.numel() for p in mlp(1).parameters()) == (1 + 1) * 40 + (40 + 1) * 40
    assert mlp(1).norm == "none"


def test_no_hidden_layer_is_the_identity() -> None:
    x = torch.randn(3, 4)
    assert torch.equal(mlp(4, ())(x), x)
    assert mlp(4, ()).features == 4


@pytest.mark.parametrize("norm", ["batch", "support", "running", "layer", "group"])
def test_a_norm_after_each_linear_layer(norm: str) -> None:
    net = mlp(6, (8, 8), norm=norm)
    kinds = [type(m) for m in net]
    kind = BatchNorm if norm in ("batch", "support", "running") else nn.GroupNorm
    assert kinds == [nn.Flatten, nn.Linear, kind, nn.ReLU, nn.Linear, kind, nn.ReLU]
    assert net(torch.randn(5, 6)).shape == (5, 8)


@pytest.mark.parametrize("make", [lambda: mlp(4, (0,))])
def test_nothing_makes_no_net(make: Callable[[], object]) -> None:
    with pytest.raises(UserError, match="mlp needs at least 1"):
        make()
