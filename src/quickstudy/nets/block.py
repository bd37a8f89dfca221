"""3×3 convolution → batch normalisation → ReLU → 2×2 max pooling as one function, and nets made of it.

Pooling and ReLU commute with a positive scale, so the function pools first and then scales: the same with a
quarter of the elementwise work, there and back. Where a scale is negative its sign goes into the filters.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.nets.fused import Block, Convolution
from quickstudy.nets.native import Native, native
from quickstudy.nets.norm import BatchNorm


def conv_norm_pool(x: Tensor, conv: nn.Conv2d, norm: BatchNorm) -> Tensor:
    """What a block makes of pictures: `[B, C, H, W]` → `[B, D, H/2, W/2]`.

    >>> import torch
    >>> conv_norm_pool(torch.rand(5, 1, 9, 8), nn.Conv2d(1, 3, 3, padding=1), BatchNorm(3)).shape
    torch.Size([5, 3, 4, 4])
    """
    bias = norm.bias.new_zeros(()) if conv.bias is None else conv.bias
    fits = x.ndim == 4 and len(x) > 0 and min(x.shape[2:]) > 1 and x.shape[1] == conv.in_channels
    kernels = native(x, conv.weight, bias, norm.weight, norm.bias) if fits else None
    if kernels is not None:
        # A view: what comes out of a block goes into the next as it lies.
        return _examples_last(kernels, x.permute(1, 2, 3, 0), conv.weight, bias, norm).permute(3, 0, 1, 2)
    sign = norm.sign()
    y = F.conv2d(x, conv.weight * sign.view(-1, 1, 1, 1), bias * sign, padding=1)
    y, scale, shift = norm.unscaled(y, sign)
    return F.relu(F.max_pool2d(y, 2) * scale.view(-1, 1, 1) + shift.view(-1, 1, 1))


def _examples_last(kernels: Native, x: Tensor, weight: Tensor, bias: Tensor, norm: BatchNorm) -> Tensor:
    """The same function of `[C, H, W, B]`, to `[D, H/2, W/2, B]`.

    A batch's own mean takes the convolution's bias away again, whose gradient so is zero.
    """
    if norm.fused(x.numel() // x.shape[0]):
        h, mean, var, *_ = Block.apply(kernels, x, weight, norm.weight, norm.bias, norm.eps)
        norm.note(mean + bias.detach(), var)
        return h
    sign = norm.sign()
    y = Convolution.apply(kernels, x, weight * sign.view(-1, 1, 1, 1), False)
    y = y + (bias * sign).view(-1, 1, 1, 1)
    y, scale, shift = norm.unscaled(y.permute(3, 0, 1, 2), sign)
    pooled = F.max_pool2d(y.permute(1, 0, 2, 3), 2)  # [D, B, H/2, W/2]
    z = F.relu(pooled * scale.view(-1, 1, 1, 1) + shift.view(-1, 1, 1, 1))
    return z.permute(0, 2, 3, 1)


class Blocks(nn.Sequential):
    """An `nn.Sequential` that computes each `Conv2d, BatchNorm, ReLU, MaxPool2d` in it as one block."""

    native = True

    def forward(self, input: Tensor) -> Tensor:
        for part in parts(list(self)):
            input = conv_norm_pool(input, *part) if isinstance(part, tuple) else part(input)
        return input


def parts(layers: list[nn.Module]) -> Iterator[nn.Module | tuple[nn.Conv2d, BatchNorm]]:
    """The layers in order; of those that are a block the convolution and the normalisation alone.

    >>> layers = [nn.Conv2d(1, 3, 3, padding=1), BatchNorm(3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    >>> [type(part).__name__ for part in parts(layers)]
    ['tuple', 'Flatten']
    """
    while layers:
        match layers[:4]:
            case nn.Conv2d() as conv, BatchNorm() as norm, nn.ReLU(), nn.MaxPool2d() as pool if _is_block(
                conv, pool
            ) and not any(map(_watched, layers[:4])):
                yield conv, norm
                layers = layers[4:]
            case _:
                yield layers[0]
                layers = layers[1:]


def _is_block(conv: nn.Conv2d, pool: nn.MaxPool2d) -> bool:
    return (
        (type(conv), conv.kernel_size, conv.stride, conv.padding) == (nn.Conv2d, (3, 3), (1, 1), (1, 1))
        and (conv.dilation, conv.groups, conv.padding_mode) == ((1, 1), 1, "zeros")
        and {pool.kernel_size, pool.stride} <= {2, (2, 2)}
        and (pool.padding, pool.dilation, pool.ceil_mode, pool.return_indices) == (0, 1, False, False)
    )


def _watched(layer: nn.Module) -> bool:
    """Whether a hook looks at what a layer makes."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(layer, kind) for kind in kinds)
