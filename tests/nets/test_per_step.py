"""A layer for each inner step: which of them serves a call, and how a net gets them."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.errors import UserError
from quickstudy.nets import (
    BatchNorm,
    Moments,
    PerStep,
    conv4,
    convert_batch_norm,
    mlp,
    native,
    normalised_by,
    per_step,
    resnet,
)
from quickstudy.nets.block import Blocks
from quickstudy.nets.native import Native

pytestmark = pytest.mark.usefixtures("float64")


def scattered(net: nn.Module) -> nn.Module:
    """Every scale, shift and average another one."""
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, BatchNorm):
                for v in (layer.weight, layer.bias, layer.mean):
                    v.normal_()
                layer.var.uniform_(0.5, 2)
    return net


def by_torch(layer: nn.Module, x: Tensor, running: bool = False) -> Tensor:
    averages = (layer.mean, layer.var) if running else (None, None)
    return F.batch_norm(x, *averages, layer.weight, layer.bias, training=not running, eps=layer.eps)


@pytest.mark.parametrize(("step", "serves"), [(0, 0), (1, 1), (2, 2), (3, 2), (99, 2), (None, 2)])
@pytest.mark.parametrize("source", ["batch", "running"])
def test_the_layer_of_the_step_serves(source: str, step: int | None, serves: int) -> None:
    norm, x = scattered(per_step(BatchNorm(3), 3)), torch.randn(5, 3)
    with normalised_by(Moments(source, step=step)) as seen:
        y = norm(x)
    torch.testing.assert_close(y, by_torch(norm[serves], x, source == "running"), rtol=1e-12, atol=1e-12)
    assert list(seen.seen) == ([norm[serves]] if source == "batch" else [])


def test_outside_any_call_the_last_one_serves() -> None:
    norm, x = scattered(per_step(BatchNorm(3), 2)), torch.randn(5, 3)
    torch.testing.assert_close(norm(x), by_torch(norm[1], x))
    torch.testing.assert_close(norm.eval()(x), by_torch(norm[1], x, running=True))


@pytest.mark.parametrize("fused", [True, False])
def test_what_the_fused_kernel_notes_carries_no_gradient(fused: bool) -> None:
    """Also where torch's plain one does its work: a step's moments are kept, its graph is not."""
    norm = BatchNorm(3)

    def noted(x: Tensor) -> Tensor:
        with normalised_by(Moments(fused=fused)) as seen:
            norm(x)
        return torch.cat(seen.seen[norm][0])

    x = torch.randn(2, 5, 3, requires_grad=True)
    assert noted(x[0]).requires_grad != fused
    assert torch.func.vmap(noted)(x).requires_grad != fused


@pytest.mark.parametrize(
    "net",
    [lambda: conv4(4, size=16, blocks=2), lambda: resnet((4, 6)), lambda: mlp(4, (3, 3), norm="support")],
)
def test_each_layer_begins_as_a_copy(net: Callable[[], nn.Module]) -> None:
    plain = scattered(net())
    given = copy.deepcopy(plain)
    ours = per_step(given, 3)
    assert ours is given
    state = ours.state_dict()
    norms = {k for k, m in plain.named_modules() if isinstance(m, BatchNorm)}
    for name, v in plain.state_dict().items():
        layer, _, kind = name.rpartition(".")
        places = [f"{layer}.{s}.{kind}" for s in range(3)] if layer in norms else [name]
        for place in places:
            torch.testing.assert_close(state.pop(place), v)
    assert not state
    assert len({p.data_ptr() for p in ours.parameters()}) == len(list(ours.parameters()))


def test_what_was_frozen_shared_or_in_evaluation_stays_so() -> None:
    shared = BatchNorm(3).float().eval()
    shared.weight.requires_grad_(False)
    net = per_step(nn.Sequential(shared, nn.ReLU(), shared), 2)
    assert isinstance(net[0], PerStep)
    assert net[0] is net[2]
    assert [k for k, p in net.named_parameters() if p.requires_grad] == ["0.0.bias", "0.1.bias"]
    assert not any(m.training for m in net[0].modules())
    assert {v.dtype for v in net.state_dict().values()} == {torch.float32}


def test_a_layer_by_itself() -> None:
    assert isinstance(per_step(BatchNorm(3), 2), PerStep)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UserError, match="steps must be at least 1, not 0"):
        per_step(conv4(4), 0)
    with pytest.raises(UserError, match=r"Sequential has no BatchNorm.*convert_batch_norm"):
        per_step(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), 2)
    with pytest.raises(UserError, match="Conv4 has batch normalisation for each step already"):
        per_step(per_step(conv4(4), 2), 2)


def own_net() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Flatten(),
    )


def of_torch() -> nn.Module:
    return per_step(convert_batch_norm(own_net()), 3)


def ours() -> nn.Module:
    return per_step(conv4(4, size=16, blocks=2), 3)


@pytest.mark.parametrize("make", [ours, of_torch])
@pytest.mark.parametrize("step", [0, 1, None])
@pytest.mark.parametrize("source", ["batch", "running"])
def test_blocks_are_computed_by_the_kernels(
    source: str,
    step: int | None,
    make: Callable[[], nn.Module],
    kernels: Native,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their output, its gradient and the gradient of that are those of the layers one by one."""
    net, x, names = scattered(make()), torch.randn(5, 1, 16, 16), []
    call = Native.__call__
    monkeypatch.setattr(Native, "__call__", lambda self, name, *a: (names.append(name), call(self, name, *a)))
    assert any(isinstance(m, Blocks) for m in net.modules()) == (make is of_torch)
    layers = [m for m in net.modules() if isinstance(m, (nn.Conv2d, PerStep))]

    def one_by_one(x: Tensor) -> Tensor:
        for conv, norm in zip(layers[::2], layers[1::2], strict=True):
            layer = norm[2 if step is None else step]
            z = by_torch(layer, conv(x), source == "running")
            x = F.max_pool2d(F.relu(z), 2)
        return x.flatten(1)

    def all_of(y: Tensor) -> list[Tensor]:
        params = list(net.parameters())
        first = torch.autograd.grad(y.sin().sum(), params, create_graph=True, materialize_grads=True)
        total = torch.stack([g.square().sum() for g in first]).sum()
        return [y, *first, *torch.autograd.grad(total, params, materialize_grads=True)]

    with native.kernels(), normalised_by(Moments(source, fused=True, step=step)):
        found = all_of(net(x))
    assert names.count("forward") == 2
    for mine, wanted in zip(found, all_of(one_by_one(x)), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("make", [ours, of_torch])
def test_a_hook_on_a_steps_layer_sees_it(make: Callable[[], nn.Module]) -> None:
    net, seen = make(), []
    norm = next(m for m in net.modules() if isinstance(m, PerStep))
    norm[1].register_forward_hook(lambda module, args, output: seen.append(output.shape[1]))
    for step in range(3):
        with normalised_by(Moments(fused=True, step=step)):
            net(torch.rand(2, 1, 16, 16))
    assert seen == [len(norm[1].weight)]
