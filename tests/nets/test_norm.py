from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.errors import UserError
from quickstudy.nets import BatchNorm, Moments, convert_batch_norm, normalised_by
from quickstudy.nets.norm import make_norm

pytestmark = pytest.mark.usefixtures("float64")


def layer(channels: int = 3) -> BatchNorm:
    """A layer with random scales (of both signs), shifts and buffers."""
    norm = BatchNorm(channels)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(channels))
        norm.bias.copy_(torch.randn(channels))
        norm.mean.copy_(torch.randn(channels))
        norm.var.copy_(torch.rand(channels) + 0.5)
    return norm


def theirs(norm: BatchNorm, x: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)


def moments_of(x: Tensor) -> tuple[Tensor, Tensor]:
    channels = x.transpose(0, 1).flatten(1)
    return channels.mean(1), channels.var(1, unbiased=False)


@pytest.mark.parametrize("shape", [(7, 3), (4, 3, 5), (4, 3, 5, 6)])
@pytest.mark.parametrize("fused", [False, True])
def test_batch_mode_equals_torchs_batch_normalisation(shape: tuple[int, ...], fused: bool) -> None:
    norm, x = layer(), torch.randn(shape, requires_grad=True)
    with normalised_by(Moments(fused=fused)) as seen:
        y = norm(x)
    torch.testing.assert_close(y, theirs(norm, x), rtol=1e-12, atol=1e-12)
    mean, var = moments_of(x)
    torch.testing.assert_close(seen.seen[norm][0][0], mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(seen.seen[norm][0][1], var, rtol=1e-12, atol=1e-12)

    inputs, weights = [x, norm.weight, norm.bias], torch.randn(shape)
    ours = torch.autograd.grad((y.sin() * weights).sum(), inputs)
    wanted = torch.autograd.grad((theirs(norm, x).sin() * weights).sum(), inputs)
    for a, b in zip(ours, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_outside_any_call_it_does_as_torchs() -> None:
    norm, x = layer(), torch.randn(5, 3)
    torch.testing.assert_close(norm(x), theirs(norm, x), rtol=1e-12, atol=1e-12)
    wanted = F.batch_norm(x, norm.mean, norm.var, norm.weight, norm.bias, training=False, eps=norm.eps)
    torch.testing.assert_close(norm.eval()(x), wanted, rtol=1e-12, atol=1e-12)
    with normalised_by(Moments()):  # a learner's call says itself what it wants
        torch.testing.assert_close(norm(x), theirs(norm, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("fused", [False, True])
def test_a_layer_used_twice_in_a_call_keeps_both_moments_in_order(fused: bool) -> None:
    norm, support = layer(), torch.randn(6, 3)

    def net(x: Tensor) -> Tensor:
        return norm(norm(x).square())

    with normalised_by(Moments(fused=fused)) as seen:
        wanted = net(support)
    with normalised_by(Moments("given", seen.seen)):
        for _ in range(2):  # a second call begins with the first moments again
            torch.testing.assert_close(net(support[:2]), wanted[:2], rtol=1e-12, atol=1e-12)


def test_running_averages_move_by_a_twentieth() -> None:
    norm, mean, var = layer(), torch.randn(3), torch.rand(3)
    wanted = 0.95 * norm.mean + 0.05 * mean, 0.95 * norm.var + 0.05 * var
    norm.average(mean, var)
    torch.testing.assert_close((norm.mean, norm.var), wanted)


def test_given_moments_are_used_and_carry_gradients() -> None:
    norm, support, query = layer(), torch.randn(6, 3, requires_grad=True), torch.randn(4, 3)
    with normalised_by(Moments()) as seen:
        norm(support)
    with normalised_by(Moments("given", seen.seen)):
        y = norm(query)
    mean, var = moments_of(support)
    torch.testing.assert_close(y, (query - mean) / (var + norm.eps).sqrt() * norm.weight + norm.bias)
    assert torch.autograd.grad(y.square().sum(), support)[0].abs().min() > 0


def test_running_mode_uses_the_buffers() -> None:
    norm, x = layer(), torch.randn(4, 3, 2, 2)
    with normalised_by(Moments("running")):
        y = norm(x)
    wanted = F.batch_norm(x, norm.mean, norm.var, norm.weight, norm.bias, training=False, eps=norm.eps)
    torch.testing.assert_close(y, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("source", ["batch", "running"])
def test_a_layer_never_changes_itself(source: str) -> None:
    norm = layer()
    before = {k: v.clone() for k, v in norm.state_dict().items()}
    for fused in (False, True):
        with normalised_by(Moments(source, fused=fused)):
            norm(torch.randn(5, 3))
    assert all(torch.equal(v, before[k]) for k, v in norm.state_dict().items())


def test_blocks_nest_and_end_also_after_an_error() -> None:
    norm, x = layer(), torch.randn(5, 3)
    with normalised_by(Moments("running")):
        outer = norm(x)
        with normalised_by(Moments()):
            assert not torch.allclose(norm(x), outer)
        assert torch.equal(norm(x), outer)
    with pytest.raises(KeyError), normalised_by(Moments("running")):
        raise KeyError
    torch.testing.assert_close(norm(x), theirs(norm, x))


@pytest.mark.parametrize("fused", [False, True])
def test_a_single_example_is_its_own_mean(fused: bool) -> None:
    norm = layer()
    with normalised_by(Moments(fused=fused)) as seen:
        torch.testing.assert_close(norm(torch.randn(1, 3)), norm.bias[None])
    assert torch.equal(seen.seen[norm][0][1], torch.zeros(3))


@pytest.mark.parametrize(
    ("norm", "kind"),
    [
        ("batch", BatchNorm),
        ("support", BatchNorm),
        ("running", BatchNorm),
        ("group", nn.GroupNorm),
        ("layer", nn.GroupNorm),
        ("none", nn.Identity),
    ],
)
def test_the_layer_of_an_option(norm: str, kind: type[nn.Module]) -> None:
    made = make_norm(norm, 12)
    assert isinstance(made, kind)
    if isinstance(made, nn.GroupNorm):
        assert made.num_groups == {"group": 4, "layer": 1}[norm]
    assert made(torch.randn(2, 12, 3, 3)).shape == (2, 12, 3, 3)


def test_an_unknown_option_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match="batch, support, running, group, layer, none; not 'bath'"):
        make_norm("bath", 4)


def test_torchs_layers_are_converted_wherever_they_are() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Flatten(), nn.LazyLinear(5)))
    net[2].append(nn.BatchNorm1d(5, affine=False, eps=1e-3))
    for _ in range(3):
        net(torch.randn(6, 1, 5, 5) * 3 + 1)
    with torch.no_grad():
        net[1].weight.copy_(torch.randn(4))
        net[1].bias.copy_(torch.randn(4))
    x = torch.randn(6, 1, 5, 5)
    in_training, in_use = net.train()(x).detach(), net.eval()(x).detach()
    # Running averages moved on by one batch after in_training was computed, before in_use was.
    converted = convert_batch_norm(net)
    assert converted is net
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules())
    with normalised_by(Moments()):
        torch.testing.assert_close(net(x), in_training, rtol=1e-10, atol=1e-10)
    with normalised_by(Moments("running")):
        torch.testing.assert_close(net(x), in_use, rtol=1e-10, atol=1e-10)
    trained = {k for k, p in net.named_parameters() if p.requires_grad}
    assert {"1.weight", "1.bias"} <= trained
    assert not {"2.2.weight", "2.2.bias"} & trained  # affine=False stays without scale and shift


@pytest.mark.parametrize("frozen", ["weight", "bias"])
@pytest.mark.parametrize("training", [True, False])
def test_what_was_frozen_or_in_evaluation_stays_so(frozen: str, training: bool) -> None:
    net = nn.Sequential(nn.BatchNorm1d(3)).train(training)
    net.get_parameter(f"0.{frozen}").requires_grad_(False)
    x, state = torch.randn(5, 3) * 2 + 1, net.state_dict()
    convert_batch_norm(net)
    assert {k: p.requires_grad for k, p in net.named_parameters()} == {
        f"0.{k}": k != frozen for k in ("weight", "bias")
    }
    wanted = nn.BatchNorm1d(3).train(training)
    wanted.load_state_dict({k.removeprefix("0."): v for k, v in state.items()})
    torch.testing.assert_close(net(x), wanted(x))


def test_a_layer_in_several_places_stays_one_layer() -> None:
    class Twice(nn.Module):
        def __init__(self, norm: nn.Module) -> None:
            super().__init__()
            self.a = self.b = norm
            self.register_module("none", None)

    shared, own = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    net = convert_batch_norm(nn.Sequential(Twice(shared), nn.ModuleDict({"c": shared, "d": own})))
    assert isinstance(net[0].a, BatchNorm)
    assert net[0].a is net[0].b is net[1]["c"] is not net[1]["d"]
    assert sum(isinstance(m, BatchNorm) for m in net.modules()) == 2
    assert not any(isinstance(m, nn.BatchNorm1d) for m in net.modules())


def test_a_lone_layer_is_converted_with_its_dtype() -> None:
    ours = convert_batch_norm(nn.BatchNorm1d(3).float())
    assert isinstance(ours, BatchNorm)
    assert {v.dtype for v in ours.state_dict().values()} == {torch.float32}


def test_a_layer_without_averages_goes_on_without() -> None:
    """In eval() torch normalises by the batch itself where nothing was kept."""
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False)).eval()
    x = torch.randn(6, 4)
    wanted = net(x)
    torch.testing.assert_close(convert_batch_norm(net)(x), wanted)


def test_a_lazy_layer_must_know_its_channels_first() -> None:
    net = nn.Sequential(nn.LazyConv2d(3, 3), nn.LazyBatchNorm2d())
    with pytest.raises(UserError, match="call the net once before"):
        convert_batch_norm(net)
    net(torch.rand(2, 1, 5, 5))
    assert isinstance(convert_batch_norm(net)[1], BatchNorm)
