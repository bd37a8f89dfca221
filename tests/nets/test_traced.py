"""Nets with a `forward` of their own, whose blocks are found in it."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.nets import Moments, convert_batch_norm, native, normalised_by, per_step
from quickstudy.nets.native import Native
from quickstudy.nets.traced import Traced


class Block(nn.Module):
    """All of a block in its children, as the nets of most libraries have it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.max_pool = nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=False)
        self.normalize = nn.BatchNorm2d(outputs, affine=True)
        nn.init.normal_(self.normalize.weight)
        self.relu = nn.ReLU()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.pooled = True

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.normalize(self.conv(x)))
        return self.max_pool(x) if self.pooled else x


class OfBlocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.base = nn.ModuleList([Block(2, 3), Block(3, 4)])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.base:
            x = block(x)
        return x.flatten(1)


class Functional(nn.Module):
    """Everything in one `forward`, by functions, beside what is no block."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 3, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(3), nn.BatchNorm2d(3)])
        self.other = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.skip = nn.Conv2d(3, 3, 1)
        self.scale = nn.Parameter(torch.tensor(0.7))

    def forward(self, x: Tensor) -> Tensor:
        h = F.max_pool2d(F.relu(self.norms[0](self.first(x))), 2)
        y = torch.max_pool2d(self.norms[1](self.other(h)).relu_(), kernel_size=2, stride=(2, 2))
        y = y + F.avg_pool2d(self.skip(h), 2) * self.scale
        return y.reshape(x.size(0), -1)


def all_of(net: nn.Module, x: Tensor) -> list[Tensor]:
    """The output, its gradient, and the gradient of a function of that."""
    params = list(net.parameters())
    first = torch.autograd.grad(net(x).sin().sum(), params, create_graph=True, materialize_grads=True)
    squares = sum(g.square().sum() for g in first)
    return [net(x), *first, *torch.autograd.grad(squares, params, materialize_grads=True)]


def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the kernels that are called from now on."""
    seen, call = [], Native.__call__

    def noted(self: Native, name: str, *given: object) -> None:
        seen.append(name)
        call(self, name, *given)

    monkeypatch.setattr(Native, "__call__", noted)
    return seen


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("make", [OfBlocks, Functional])
def test_the_blocks_of_a_forward_are_computed_as_one_each(
    make: type[nn.Module], training: bool, kernels: Native, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = make().double()
    ours = convert_batch_norm(copy.deepcopy(theirs)).train(training)
    assert isinstance(ours, make)
    assert list(ours.state_dict()) == [
        *(n.replace("running_", "") for n in theirs.state_dict() if "num_batches" not in n)
    ]
    seen, x = calls(monkeypatch), torch.randn(6, 2, 9, 8, dtype=torch.double)
    with native.kernels(), normalised_by(Moments(fused=True)):
        found = all_of(ours, x)
        assert seen.count("forward") == 4  # two blocks, called twice
        again = copy.deepcopy(ours)(x)
    for mine, wanted in zip(found, all_of(theirs, x), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(again, found[0])


def test_settings_and_layers_that_change_later_are_followed(kernels: Native) -> None:
    theirs = Block(2, 3).double()
    ours = convert_batch_norm(copy.deepcopy(theirs))
    assert isinstance(ours, Traced)
    x = torch.randn(5, 2, 8, 8, dtype=torch.double)

    def same(change: Callable[[nn.Module], object]) -> None:
        for net in (theirs, ours):
            change(net)
        with native.kernels(), normalised_by(Moments(fused=True)):
            torch.testing.assert_close(ours(x), theirs(x))

    same(lambda net: setattr(net, "relu", nn.Tanh()))
    same(lambda net: setattr(net, "relu", nn.ReLU()))
    same(lambda net: net.conv.register_forward_hook(lambda module, args, output: output * 2))
    same(lambda net: setattr(net, "pooled", False))


class Activated(Block):
    """Its activation is a function that it holds."""

    def __init__(self, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__(2, 3)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(self.act(self.normalize(self.conv(x))), 2)


def test_a_function_that_is_replaced_later_is_followed(kernels: Native) -> None:
    theirs = Activated(F.relu).double()
    ours, x = convert_batch_norm(copy.deepcopy(theirs)), torch.randn(5, 2, 8, 8, dtype=torch.double)
    assert isinstance(ours, Traced)
    for act in (F.relu, torch.tanh, F.relu, partial(torch.mul, 2.0)):
        theirs.act = ours.act = act
        with native.kernels(), normalised_by(Moments(fused=True)):
            torch.testing.assert_close(ours(x), theirs(x))
    assert type(convert_batch_norm(Activated(partial(F.relu)))) is Activated  # it may change inside


class Classwide(Block):
    """What its class holds, and a method."""

    slope = 0.0

    def act(self, x: Tensor) -> Tensor:
        return F.relu(x)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(self.act(self.normalize(self.conv(x))), 2) + self.slope


@pytest.mark.parametrize(("name", "value"), [("slope", 2.0), ("act", lambda self, x: x.tanh())])
def test_what_is_replaced_in_its_class_is_followed(
    name: str, value: Any, kernels: Native, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = Classwide(2, 3).double()
    ours, x = convert_batch_norm(copy.deepcopy(theirs)), torch.randn(5, 2, 8, 8, dtype=torch.double)
    assert isinstance(ours, Traced)
    monkeypatch.setattr(Classwide, name, value)
    with native.kernels(), normalised_by(Moments(fused=True)):
        torch.testing.assert_close(ours(x), theirs(x))


def test_each_step_has_a_normalisation_of_its_own(kernels: Native, monkeypatch: pytest.MonkeyPatch) -> None:
    net = per_step(convert_batch_norm(OfBlocks()).double(), 2)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if "normalize" in name:
                nn.init.normal_(p)
    x, seen = torch.randn(6, 2, 9, 8, dtype=torch.double), calls(monkeypatch)
    for step in (0, 1):
        with normalised_by(Moments(fused=True, step=step)):
            wanted = net(x)
            assert not seen
            with native.kernels():
                torch.testing.assert_close(net(x), wanted)
            assert seen == ["forward"] * 2
            seen.clear()


class Odd(Block):
    """A net with something in its `forward` that a trace would lose."""

    def __init__(self, before: Callable[[Odd], object]) -> None:
        super().__init__(2, 3)
        self.before, self.log = before, []

    def forward(self, x: Tensor) -> Tensor:
        added = self.before(self)
        return super().forward(x) + (0.0 if added is None else added)


class WithoutGradients(Block):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return super().forward(x)


class ByData(Block):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if len(x) > 3 else super().forward(-x)


class Twice(Block):
    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        return self.max_pool(self.relu(self.normalize(h))) + self.max_pool(h)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Odd(lambda net: net.log.append(1)),
        lambda: Odd(lambda net: setattr(net, "count", getattr(net, "count", 0) + 1)),
        lambda: Odd(lambda net: random.random()),
        lambda: Odd(lambda net: float(torch.rand(()))),
        lambda: Odd(lambda net: torch.ones(4)),
        lambda: WithoutGradients(2, 3),
    ],
)
def test_what_a_trace_would_lose_is_left_as_it_is(make: Callable[[], nn.Module]) -> None:
    net = make()
    ours = convert_batch_norm(copy.deepcopy(net))
    assert type(ours) is type(net)
    if isinstance(net, Odd):
        assert ours.log == []
        assert not hasattr(ours, "count")


@pytest.mark.parametrize("make", [ByData, Twice])
def test_what_cannot_be_traced_or_is_no_block_is_left(make: type[nn.Module], kernels: Native) -> None:
    theirs = make(2, 3).double()
    ours = convert_batch_norm(copy.deepcopy(theirs))
    assert type(ours) is make
    for x in torch.randn(9, 2, 8, 8, dtype=torch.double).split((3, 6)):
        with native.kernels(), normalised_by(Moments(fused=True)):
            torch.testing.assert_close(ours(x), theirs(x))


SCALE = 2.0


class Setting:
    scale = 2.0


def scaled(x: Tensor) -> Tensor:
    return x * SCALE


class OfALayer(Block):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.relu.scale


class Scaling(nn.ReLU):
    scale = 2.0


class OfALayersClass(Block):
    def __init__(self, *channels: int) -> None:
        super().__init__(*channels)
        self.relu = Scaling()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.relu.scale


class OfAnObject(Block):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.setting.scale


class OfTheModule(Block):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * SCALE


class OfAFunctions(Block):
    def forward(self, x: Tensor) -> Tensor:
        return scaled(super().forward(x))


class OfAMethods(Block):
    @property
    def scale(self) -> float:
        return SCALE

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.scale


@pytest.mark.parametrize(
    "make", [OfALayer, OfALayersClass, OfAnObject, OfTheModule, OfAFunctions, OfAMethods]
)
def test_what_may_change_elsewhere_is_followed(
    make: Callable[..., nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = make(2, 3)
    net.setting = Setting()
    if make is OfALayer:
        net.relu.scale = 2.0
    ours, x = convert_batch_norm(net), torch.randn(5, 2, 8, 8)
    before = ours(x)
    ours.setting.scale = ours.relu.scale = 6.0
    monkeypatch.setitem(globals(), "SCALE", 6.0)
    with native.kernels(), normalised_by(Moments(fused=True)):
        torch.testing.assert_close(ours(x), 3 * before)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_traced_net_is_copied_and_kept(
    again: Callable[[nn.Module], nn.Module], kernels: Native, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x = convert_batch_norm(OfBlocks()).double(), torch.randn(5, 2, 8, 8, dtype=torch.double)
    net.base[0].shared = net.base[1].conv
    other, seen = again(net), calls(monkeypatch)
    assert type(other) is OfBlocks
    assert isinstance(other.base[1], Traced)
    assert other.base[0].shared is other.base[1].conv is not net.base[1].conv
    with native.kernels(), normalised_by(Moments(fused=True)):
        torch.testing.assert_close(other(x), net(x))
        assert seen.count("forward") == 4
        with torch.no_grad():
            other.base[1].conv.weight.add_(1.0)
        assert (other(x) - net(x)).abs().max() > 0
