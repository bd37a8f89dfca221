"""3×3 convolution → batch normalisation → ReLU → 2×2 max pooling as one function, and nets made of it.

Pooling and ReLU commute with a positive scale, so the function pools first and then scales: the same with a
quarter of the elementwise work, there and back. Where a scale is negative its sign goes into the filters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.nets.fused import Block
from quickstudy.nets.native import Native, is_second_order, native
from quickstudy.nets.norm import BatchNorm
from quickstudy.nets.per_step import PerStep


def conv_norm_pool(x: Tensor, conv: nn.Conv2d, norm: BatchNorm | PerStep) -> Tensor:
    """What a block makes of pictures: `[B, C, H, W]` → `[B, D, H/2, W/2]`.

    >>> conv_norm_pool(torch.rand(5, 1, 9, 8), nn.Conv2d(1, 3, 3, padding=1), BatchNorm(3)).shape
    torch.Size([5, 3, 4, 4])
    """
    norm = norm.current if isinstance(norm, PerStep) else norm
    bias = norm.bias.new_zeros(()) if conv.bias is None else conv.bias
    fits = x.ndim == 4 and x.shape[0] > 0 and min(x.shape[2:]) > 1 and x.shape[1] == conv.in_channels
    kernels = native(x, conv.weight, bias, norm.weight, norm.bias) if fits else None
    if kernels is not None and not (
        is_second_order() and norm.carries()
    ):  # moments have one derivative there
        # A view: what comes out of a block goes into the next as it lies.
        return _examples_last(kernels, x.permute(1, 2, 3, 0), conv.weight, bias, norm).permute(3, 0, 1, 2)
    sign = norm.sign()
    y = F.conv2d(x, conv.weight * sign.view(-1, 1, 1, 1), bias * sign, padding=1)
    y, scale, shift = norm.unscaled(y, sign)
    return F.relu(F.max_pool2d(y, 2) * scale.view(-1, 1, 1) + shift.view(-1, 1, 1))


def _examples_last(kernels: Native, x: Tensor, weight: Tensor, bias: Tensor, norm: BatchNorm) -> Tensor:
    """The same function of `[C, H, W, B]`, to `[D, H/2, W/2, B]`."""
    moments = norm.given()
    if moments is None:
        # A batch's own mean takes the convolution's bias away again, whose gradient so is zero.
        carry = norm.carries()
        h, mean, var, *_ = Block.apply(kernels, x, weight, norm.weight, norm.bias, norm.eps, carry)
        norm.note(mean + (bias if carry else bias.detach()), var)
        return h
    scale, shift = norm.affine(*moments)
    return Block.apply(kernels, x, weight, scale, shift + scale * bias, None, False)[0]


class Blocks(nn.Sequential):
    """An `nn.Sequential` that computes each `Conv2d, BatchNorm, ReLU, MaxPool2d` in it as one block."""

    native = True

    def forward(self, input: Tensor) -> Tensor:
        return in_order(input, list(self))


def in_order(x: Tensor, layers: list[Any]) -> Tensor:
    """What layers make of `x` one after the other, each block among them computed as one.

    >>> in_order(torch.tensor([-1.0, 2.0]), [nn.ReLU(), nn.Identity()])
    tensor([0., 2.])
    """
    for part in parts(layers):
        x = conv_norm_pool(x, *part) if isinstance(part, tuple) else part(x)
    return x


def parts(layers: list[Any]) -> Iterator[nn.Module | tuple[nn.Conv2d, BatchNorm | PerStep]]:
    """The layers in order; of those that are a block the convolution and the normalisation alone.

    >>> layers = [nn.Conv2d(1, 3, 3, padding=1), BatchNorm(3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    >>> [type(part).__name__ for part in parts(layers)]
    ['tuple', 'Flatten']
    """
    while layers:
        if is_block(layers[:4]):
            conv, norm, *_ = layers
            yield conv, norm
            layers = layers[4:]
        else:
            yield layers[0]
            layers = layers[1:]


def is_block(layers: list[Any]) -> bool:
    """Whether these layers are one block, with nothing in them that would see the layers called.

    >>> is_block([nn.Conv2d(1, 3, 3), BatchNorm(3), nn.ReLU(), nn.MaxPool2d(2)])  # of another padding
    False
    """
    if [_kind(layer) for layer in layers] != [nn.Conv2d, BatchNorm, nn.ReLU, nn.MaxPool2d]:
        return False
    conv, _, _, pool = layers
    return (
        (conv.kernel_size, conv.stride) == ((3, 3), (1, 1))
        and conv.padding in ((1, 1), "same")
        and (conv.dilation, conv.groups, conv.padding_mode) == ((1, 1), 1, "zeros")
        and (_pair(pool.kernel_size), _pair(pool.stride)) == ((2, 2), (2, 2))
        and (_pair(pool.padding), _pair(pool.dilation)) == ((0, 0), (1, 1))
        and not (pool.ceil_mode or pool.return_indices)
        and not any(map(has_hooks, layers))
    )


def _kind(layer: nn.Module) -> type[nn.Module]:
    return type(layer.current if type(layer) is PerStep else layer)


def _pair(size: int | Sequence[int]) -> tuple[int, ...]:
    return (size, size) if isinstance(size, int) else tuple(size)


def has_hooks(layer: nn.Module) -> bool:
    """Whether calling a layer, or one in it, does more than its class says: a hook, a `forward` of its own.

    >>> has_hooks(nn.ReLU())
    False
    """
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    own = "forward" in vars(layer) or any(getattr(layer, kind) for kind in kinds)
    return own or any(has_hooks(inside) for inside in layer._modules.values() if inside is not None)
