from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from quickstudy.errors import UserError
from quickstudy.nets import BatchNorm, Moments, conv4, film_layers, filmed, mlp, normalised_by

pytestmark = pytest.mark.usefixtures("float64")


def watched_outputs(net: nn.Module, layers: dict[str, int], x: Tensor, film: Tensor | None) -> Tensor:
    """The net's answer, each layer's output changed by a hook, as the paper says it."""
    pairs = []
    if film is not None:
        scales, shifts = film.split([sum(layers.values())] * 2)
        widths = list(layers.values())
        pairs = list(zip(layers, scales.split(widths), shifts.split(widths), strict=True))

    def changed(gamma: Tensor, beta: Tensor) -> Callable[..., Tensor]:
        def hook(module: nn.Module, given: object, out: Tensor) -> Tensor:
            shape = (1, -1) if out.ndim == 2 else (1, -1, 1, 1)
            return (1 + gamma.reshape(shape)) * out + beta.reshape(shape)

        return hook

    hooks = [net.get_submodule(name).register_forward_hook(changed(g, b)) for name, g, b in pairs]
    try:
        with normalised_by(Moments("batch")):
            return net(x)
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (lambda: conv4(3, size=8, blocks=2), (4, 1, 8, 8)),
        (lambda: mlp(3, (5, 4)), (6, 3)),
        (lambda: mlp(3, (5, 4), norm="layer"), (6, 3)),
        (lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.GroupNorm(1, 3), nn.ReLU()), (2, 2, 5, 5)),
        (lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten()), (2, 2, 5, 5)),
    ],
    ids=["conv4", "mlp", "layer norm", "group norm", "convolution"],
)
def test_changed_weights_are_changed_outputs(net: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    made, x = net().double(), torch.randn(shape)
    layers = film_layers(made)
    film = torch.randn(2 * sum(layers.values()))
    wanted = watched_outputs(made, layers, x, film)
    weights = filmed(dict(made.named_parameters()), layers, film)
    with normalised_by(Moments("batch")):
        found = torch.func.functional_call(made, weights, (x,))
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)
    assert (found - watched_outputs(made, layers, x, None)).abs().max() > 1e-3


def test_zeros_change_nothing() -> None:
    net = conv4(3, blocks=2).double()
    layers = film_layers(net)
    weights = dict(net.named_parameters())
    same = filmed(weights, layers, torch.zeros(2 * sum(layers.values())))
    assert all(torch.equal(same[k], v) for k, v in weights.items())
    assert same.keys() == weights.keys()


def test_normalisation_goes_before_linear_layers() -> None:
    net = nn.Sequential(nn.Linear(2, 3), BatchNorm(3), nn.ReLU(), nn.Linear(3, 4))
    assert film_layers(net) == {"1": 3}


def test_transposed_convolutions_are_left() -> None:
    """Their weights have the channels that come in first."""
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ConvTranspose2d(3, 3, 3))
    assert film_layers(net) == {"0": 3}


def test_nothing_to_modulate() -> None:
    with pytest.raises(UserError, match="no layer that FiLM could modulate"):
        film_layers(nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU()))
