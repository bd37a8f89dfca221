from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.errors import UserError
from quickstudy.nets import BatchNorm, ConvBlock, Moments, conv4, normalised_by

pytestmark = pytest.mark.usefixtures("float64")


def block() -> tuple[ConvBlock, BatchNorm]:
    """A block whose scales are positive, negative and zero."""
    made = ConvBlock(2, 6, "batch")
    assert isinstance(made.norm, BatchNorm)
    with torch.no_grad():
        made.norm.weight.copy_(torch.tensor([1.3, -0.7, 0.0, -2.0, 0.4, -0.1]))
        made.norm.bias.copy_(torch.randn(6))
        made.norm.mean.copy_(torch.randn(6))
        made.norm.var.copy_(torch.rand(6) + 0.5)
    return made, made.norm


def plain(made: ConvBlock, norm: BatchNorm, x: Tensor, running: bool = False) -> Tensor:
    """Convolution, torch's batch normalisation, ReLU, pooling: one after the other, as the papers say."""
    y = F.conv2d(x, made.conv.weight, made.conv.bias, padding=1)
    statistics = (norm.mean.clone(), norm.var.clone()) if running else (None, None)
    y = F.batch_norm(y, *statistics, norm.weight, norm.bias, training=not running, eps=norm.eps)
    return F.max_pool2d(F.relu(y), 2)


@pytest.mark.parametrize("size", [8, 7])
@pytest.mark.parametrize("fused", [False, True])
def test_a_block_is_conv_norm_relu_pool_whatever_the_signs(fused: bool, size: int) -> None:
    made, norm = block()
    x = torch.randn(5, 2, size, size, requires_grad=True)
    with normalised_by(Moments(fused=fused)) as seen:
        y = made(x)
    wanted = plain(made, norm, x)
    torch.testing.assert_close(y, wanted, rtol=1e-11, atol=1e-11)

    z = F.conv2d(x, made.conv.weight, made.conv.bias, padding=1)
    torch.testing.assert_close(seen.seen[norm][0][0], z.mean((0, 2, 3)), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(
        seen.seen[norm][0][1], z.var((0, 2, 3), unbiased=False), rtol=1e-11, atol=1e-11
    )

    # A scale of exactly 0 has no derivative here: max and scale swap their order only beside it.
    inputs, weights = [x, made.conv.weight, norm.bias], torch.randn(y.shape)
    ours = torch.autograd.grad((y * weights).sum(), inputs)
    reference = torch.autograd.grad((wanted * weights).sum(), inputs)
    for a, b in zip(ours, reference, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("fused", [False, True])
def test_the_scale_has_the_same_gradient_too(fused: bool) -> None:
    made, norm = block()
    with torch.no_grad():
        norm.weight[2] = -0.5
    x, weights = torch.randn(5, 2, 8, 8), torch.randn(5, 6, 4, 4)
    with normalised_by(Moments(fused=fused)):
        (ours,) = torch.autograd.grad((made(x) * weights).sum(), norm.weight)
    (reference,) = torch.autograd.grad((plain(made, norm, x) * weights).sum(), norm.weight)
    torch.testing.assert_close(ours, reference, rtol=1e-10, atol=1e-10)


def test_running_and_given_statistics() -> None:
    made, norm = block()
    x, q = torch.randn(5, 2, 8, 8), torch.randn(3, 2, 8, 8)
    with normalised_by(Moments("running")):
        torch.testing.assert_close(made(q), plain(made, norm, q, running=True), rtol=1e-11, atol=1e-11)
    with normalised_by(Moments()) as seen:
        made(x)
    with normalised_by(Moments("given", seen.seen)):
        y = made(q)
    with torch.no_grad():
        mean, var = seen.seen[norm][0]
        norm.mean.copy_(mean)
        norm.var.copy_(var)
    torch.testing.assert_close(y, plain(made, norm, q, running=True), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("norm", ["group", "layer", "none"])
def test_other_norms_look_at_one_example_only(norm: str) -> None:
    net, x = conv4(8, norm=norm), torch.randn(4, 1, 28, 28)
    torch.testing.assert_close(net(x)[1:2], net(x[1:2]), rtol=1e-10, atol=1e-10)
    made = ConvBlock(1, 8, norm)
    wanted = F.max_pool2d(F.relu(made.norm(made.conv(x))), 2)
    assert torch.equal(made(x), wanted)


@pytest.mark.parametrize(
    ("size", "blocks", "colours"), [(28, 4, 1), (84, 4, 3), (20, 3, 1), (16, 4, 3), (9, 2, 1)]
)
def test_features_is_the_width_that_comes_out(size: int, blocks: int, colours: int) -> None:
    net = conv4(5, in_channels=colours, size=size, blocks=blocks)
    assert net(torch.zeros(2, colours, size, size)).shape == (2, net.features)


@pytest.mark.parametrize("norm", ["support", "layer"])
def test_the_first_blocks_halve_and_the_others_leave_the_map(norm: str) -> None:
    net, x = conv4(4, size=16, norm=norm, halvings=2), torch.rand(3, 1, 16, 16)
    z = x
    for i, block in enumerate(list(net)[:4]):
        z = F.relu(block.norm(block.conv(z)))
        z = F.max_pool2d(z, 2) if i < 2 else z
    assert net.map_shape == tuple(z.shape[1:]) == (4, 4, 4)
    torch.testing.assert_close(net(x).unflatten(1, net.map_shape), z, rtol=1e-5, atol=1e-6)
    for halvings in (-1, 5):
        with pytest.raises(UserError, match=f"halvings must be from 0 to 4, .* not {halvings}"):
            conv4(4, halvings=halvings)


def test_64_channels_have_the_papers_number_of_parameters() -> None:
    wanted = (9 * 1 + 1 + 2) * 64 + 3 * (9 * 64 + 1 + 2) * 64
    assert sum(p.numel() for p in conv4(64).parameters()) == wanted


def test_too_small_a_picture_is_an_error() -> None:
    with pytest.raises(UserError, match="15×15 are too small for 4 blocks"):
        conv4(8, size=15)


def test_the_state_is_named_by_block() -> None:
    names = set(conv4(4, blocks=1).state_dict())
    parts = ("conv.weight", "conv.bias", "norm.weight", "norm.bias", "norm.mean", "norm.var")
    assert names == {f"0.{part}" for part in parts}
    assert isinstance(conv4(4)[0], nn.Module)


@pytest.mark.parametrize("options", [{"channels": 0}, {"in_channels": 0}, {"blocks": 0}])
def test_nothing_makes_no_net(options: dict[str, int]) -> None:
    with pytest.raises(UserError, match="at least 1 channel and 1 block"):
        conv4(**options)
