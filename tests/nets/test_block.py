"""Nets as users write them, of torch's layers, whose blocks are computed as one."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from quickstudy.nets import Moments, convert_batch_norm, native, normalised_by
from quickstudy.nets.block import Blocks, conv_norm_pool, parts
from quickstudy.nets.native import Native


def block(inputs: int, outputs: int, *, bias: bool = True, affine: bool = True) -> list[nn.Module]:
    norm = nn.BatchNorm2d(outputs, affine=affine, eps=1e-3)
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return [
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias),
        norm,
        nn.ReLU(inplace=True),
        nn.MaxPool2d((2, 2)),
    ]


def nested() -> nn.Sequential:
    return nn.Sequential(nn.Sequential(*block(2, 3)), nn.Sequential(*block(3, 4)), nn.Flatten())


def in_a_row() -> nn.Sequential:
    return nn.Sequential(*block(2, 3, bias=False), *block(3, 3, affine=False), nn.Flatten(), nn.Linear(12, 4))


def among_others() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 3, 1), *block(3, 3), nn.Tanh(), *block(3, 4)[:3], nn.Flatten())


@pytest.fixture(params=[True, False], ids=["native", "torch"])
def either(request: pytest.FixtureRequest, kernels: Native) -> bool:
    """Native kernels are used, or torch's."""
    with native.kernels(), native.allowing(request.param):
        yield request.param


def all_of(net: nn.Module, x: Tensor) -> list[Tensor]:
    """The output, its gradient, and the gradient of a function of that."""
    params = [p for p in net.parameters() if p.requires_grad]
    first = torch.autograd.grad(net(x).sin().sum(), params, create_graph=True, materialize_grads=True)
    return [
        net(x),
        *first,
        *torch.autograd.grad(sum(g.square().sum() for g in first), params, materialize_grads=True),
    ]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(("make", "blocks"), [(nested, 2), (in_a_row, 2), (among_others, 1)])
def test_a_converted_net_is_the_same_function(
    make: Callable[[], nn.Sequential], blocks: int, fused: bool, either: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = make().double()
    names = [name for name, _ in theirs.named_parameters()]
    ours, seen = convert_batch_norm(copy.deepcopy(theirs)), []
    for module in ours.modules():
        if isinstance(module, Blocks):
            break
    else:
        raise AssertionError("no block was found")

    def noting(*given: object) -> Tensor:
        seen.append(given)
        return conv_norm_pool(*given)

    def counted(self: Native, name: str, *given: object) -> None:
        native_calls.append(name)
        call(self, name, *given)

    native_calls, call = [], Native.__call__
    monkeypatch.setattr("quickstudy.nets.block.conv_norm_pool", noting)
    monkeypatch.setattr(Native, "__call__", counted)
    x = torch.randn(6, 2, 9, 8, dtype=torch.double)
    with normalised_by(Moments(fused=fused)):
        found = all_of(ours, x)
    assert len(seen) == 2 * blocks
    assert native_calls.count("forward") == (2 * blocks if either else 0)
    for mine, wanted in zip(found, all_of(theirs, x), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-9, atol=1e-9)
    kept = [name for name, p in ours.named_parameters() if p.requires_grad]
    assert kept == names


def other(place: int, layer: nn.Module) -> nn.Sequential:
    layers = block(2, 4)
    layers[place] = layer
    return nn.Sequential(*layers)


class Threshold(nn.ReLU):
    """No plain ReLU, though its child."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - 0.5)


def replaced() -> nn.Sequential:
    net = nn.Sequential(*block(2, 4))
    net[2].forward = lambda x: x.relu() + 1
    return net


def watched() -> nn.Sequential:
    net = nn.Sequential(*block(2, 4))
    net[2].register_forward_hook(lambda module, args, output: output + 1)
    return net


def renormed() -> nn.Sequential:
    net = nn.Sequential(*block(2, 4))
    nn.utils.parametrizations.weight_norm(net[0])
    return net


@pytest.mark.parametrize(
    "make",
    [
        *(
            lambda options=options: other(0, nn.Conv2d(2, 4, **options))
            for options in (
                {"kernel_size": 5, "padding": 1},
                {"kernel_size": 3},
                {"kernel_size": 3, "padding": 1, "stride": 2},
                {"kernel_size": 3, "padding": 1, "dilation": 2},
                {"kernel_size": 3, "padding": 1, "groups": 2},
                {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
            )
        ),
        *(
            lambda options=options: other(3, nn.MaxPool2d(**options))
            for options in (
                {"kernel_size": 3},
                {"kernel_size": 2, "stride": 1},
                {"kernel_size": 2, "padding": 1},
                {"kernel_size": 2, "dilation": 2},
                {"kernel_size": 2, "ceil_mode": True},
                {"kernel_size": (2, 3)},
            )
        ),
        lambda: other(3, nn.AvgPool2d(2)),
        lambda: other(2, nn.LeakyReLU()),
        lambda: other(2, Threshold()),
        watched,
        replaced,
        renormed,
    ],
)
def test_what_is_no_block_is_left_as_it_is(make: Callable[[], nn.Sequential], kernels: Native) -> None:
    theirs = make().double()
    ours = convert_batch_norm(copy.deepcopy(theirs))
    x = torch.randn(6, 2, 9, 7, dtype=torch.double)
    with native.kernels(), normalised_by(Moments(fused=True)):
        torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("padding", [1, "same"])
def test_a_block_is_found_by_what_it_computes(padding: int | str, kernels: Native) -> None:
    theirs = nn.Sequential(nn.Conv2d(2, 4, 3, padding=padding), *block(2, 4)[1:]).double()
    ours, x = convert_batch_norm(copy.deepcopy(theirs)), torch.randn(6, 2, 9, 7, dtype=torch.double)
    assert [type(part) for part in parts(list(ours))] == [tuple]
    with native.kernels(), normalised_by(Moments(fused=True)):
        torch.testing.assert_close(ours(x), theirs(x))


def test_a_hook_that_comes_later_sees_its_layer() -> None:
    net, seen = convert_batch_norm(nn.Sequential(*block(2, 4))), []
    assert isinstance(net, Blocks)
    x = torch.randn(3, 2, 6, 6)
    before = net(x)
    net[1].register_forward_hook(lambda module, args, output: seen.append(output.shape))
    torch.testing.assert_close(net(x), before)
    assert seen == [(3, 4, 6, 6)]


def test_hooks_and_names_of_a_sequence_stay() -> None:
    net, seen = nn.Sequential(), []
    for name, layer in zip("abcd", block(2, 4), strict=True):
        net.add_module(name, layer)
    net.register_forward_hook(lambda module, args, output: seen.append(output.shape))
    net.eval().note = "kept"
    ours = convert_batch_norm(net)
    assert ours is net
    assert [name for name, _ in ours.named_children()] == ["a", "b", "c", "d"]
    assert (ours.note, ours.training) == ("kept", False)
    ours(torch.randn(3, 2, 6, 6))
    assert seen == [(3, 4, 3, 3)]
