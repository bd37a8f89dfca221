"""Feature-wise linear modulation: Perez et al. 2018, FiLM, arXiv 1709.07871.

A layer's outputs become (1 + γ) ⊙ h + β, channel by channel. Of a layer that ends by scaling and shifting
its channels (a normalisation, a linear layer, a convolution) that is the same layer with other weights, so
that any net is modulated by the weights it is called with: every kernel and every map over tasks serves.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from quickstudy.errors import UserError
from quickstudy.nets.norm import NORMS

LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""What has its channels first in its weights; transposed convolutions have them second."""


def film_layers(net: nn.Module) -> dict[str, int]:
    """The layers that FiLM modulates, by name, and how many channels each has: those that normalise, or in a
    net without such, the linear layers and convolutions.

    Raises:
        UserError: the net has neither, with a scale and a shift.

    >>> from quickstudy.nets import conv4, mlp
    >>> film_layers(conv4(8, blocks=2))
    {'0.norm': 8, '1.norm': 8}
    >>> film_layers(mlp(1, (40, 40)))
    {'1': 40, '3': 40}
    """
    for kinds in (NORMS, LINEAR):
        found = {
            name: m.bias.numel()
            for name, m in net.named_modules()
            if isinstance(m, kinds) and isinstance(m.weight, Tensor) and isinstance(m.bias, Tensor)
        }
        if found:
            return found
    raise UserError(
        f"the body, {type(net).__name__}, has no layer that FiLM could modulate: it needs normalisation, "
        "linear layers or convolutions, with scale or weights and a bias (--body conv4 has them)"
    )


def filmed(weights: Mapping[str, Tensor], layers: Mapping[str, int], film: Tensor) -> dict[str, Tensor]:
    """The weights of the net whose layers are modulated.

    Args:
        weights: by name; those that no layer has stay as they are.
        layers: as `film_layers` finds them.
        film: γ of all layers, then β of all layers `[2 · channels]`; zeros change nothing.

    >>> import torch
    >>> net = nn.Linear(1, 2)
    >>> changed = filmed(dict(net.named_parameters()), {"": 2}, torch.tensor([1.0, 0.0, 0.0, 5.0]))
    >>> x = torch.ones(1, 1)
    >>> y, z = net(x), torch.func.functional_call(net, changed, (x,))
    >>> torch.allclose(z, torch.stack([2 * y[:, 0], y[:, 1] + 5], 1))
    True
    """
    widths = list(layers.values())
    scales, shifts = film.split([sum(widths)] * 2)
    changed = dict(weights)
    for name, gamma, beta in zip(layers, scales.split(widths), shifts.split(widths), strict=True):
        weight, bias = (f"{name}.{kind}".lstrip(".") for kind in ("weight", "bias"))
        shape = weights[bias].shape
        scale, apart = (1 + gamma).reshape(shape), [1] * (weights[weight].ndim - len(shape))
        changed[weight] = scale.reshape(*shape, *apart) * weights[weight]
        changed[bias] = scale * weights[bias] + beta.reshape(shape)
    return changed
