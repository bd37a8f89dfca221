"""A multilayer perceptron as a body."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from quickstudy.errors import UserError
from quickstudy.nets.norm import make_norm


class MLP(nn.Sequential):
    """Flatten, then (linear → normalisation → ReLU) for each hidden width."""

    def __init__(self, inputs: int, hidden: Sequence[int], norm: str) -> None:
        layers: list[nn.Module] = [nn.Flatten()]
        for width_in, width in zip([inputs, *hidden], hidden, strict=False):
            layers += [nn.Linear(width_in, width)]
            layers += [] if norm == "none" else [make_norm(norm, width)]
            layers += [nn.ReLU()]
        super().__init__(*layers)
        self.features = hidden[-1] if hidden else inputs
        self.norm = norm


def mlp(inputs: int, hidden: Sequence[int] = (40, 40), *, norm: str = "none") -> MLP:
    """An MLP body: `[B, inputs…]` → `[B, hidden[-1]]`; the default is the MAML paper's for sinusoids.

    Raises:
        UserError: a layer of no unit.

    >>> mlp(1)(torch.zeros(3, 1)).shape
    torch.Size([3, 40])
    """
    if min([inputs, *hidden]) < 1:
        raise UserError(f"mlp needs at least 1 unit a layer, not {(inputs, *hidden)}")
    return MLP(inputs, hidden, norm)


def perceptron(inputs: int, hidden: int, outputs: int, *, zeros: bool = False) -> nn.Sequential:
    """Two hidden layers and a linear one: `[n, inputs]` → `[n, outputs]`; with `zeros` 0 at the beginning.

    >>> perceptron(3, 8, 2, zeros=True)(torch.ones(1, 3)).detach()
    tensor([[0., 0.]])
    """
    net = nn.Sequential(mlp(inputs, (hidden, hidden)), nn.Linear(hidden, outputs))
    return ends_in_zeros(net) if zeros else net


def ends_in_zeros(net: nn.Sequential) -> nn.Sequential:
    """The same net, its last layer all zeros: what it writes begins as nothing."""
    for p in net[-1].parameters():
        nn.init.zeros_(p)
    return net
