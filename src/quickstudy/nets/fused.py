"""A block of the convolutional net as one operation, with its way back and the way back of that.

Pictures lie as `[C, H, W, B]` here, a task's examples side by side; see `conv_block.c` for the formulas. A
block can be differentiated twice, its convolution any number of times.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quickstudy.nets.native import Dims, Native


def dims(x: Tensor, w: Tensor) -> Dims:
    """The sizes of a convolution of `[Ci, H, W, B]` by `[Co, Ci, 3, 3]`."""
    return Dims(x.shape[3], w.shape[1], w.shape[0], x.shape[1], x.shape[2])


class Convolution(torch.autograd.Function):
    """`[Ci, H, W, B]` by `[Co, Ci, 3, 3]`, with a border of zeros: `[Co, H, W, B]`.

    Transposed it is the gradient of that by its input: from `[Co, H, W, B]` to `[Ci, H, W, B]`.
    """

    @staticmethod
    def forward(ctx: Any, native: Native, x: Tensor, w: Tensor, transposed: bool) -> Tensor:
        ctx.native, ctx.transposed = native, transposed
        ctx.save_for_backward(x, w)
        y = x.new_empty(w.shape[1 if transposed else 0], *x.shape[1:])
        native("conv", dims(x, w), transposed, x, w, y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (x, w), g = ctx.saved_tensors, grads[0].contiguous()
        _, by_x, by_w, _ = ctx.needs_input_grad
        pair = (g, x) if ctx.transposed else (x, g)
        return (
            None,
            Convolution.apply(ctx.native, g, w, not ctx.transposed) if by_x else None,
            Correlation.apply(ctx.native, *pair) if by_w else None,
            None,
        )


class Correlation(torch.autograd.Function):
    """The gradient of a convolution by its weights: `[Ci, H, W, B]`, `[Co, H, W, B]` → `[Co, Ci, 3, 3]`."""

    @staticmethod
    def forward(ctx: Any, native: Native, x: Tensor, g: Tensor) -> Tensor:
        ctx.native = native
        ctx.save_for_backward(x, g)
        w = x.new_empty(g.shape[0], x.shape[0], 3, 3)
        native("correlate", dims(x, w), x, g, w)
        return w

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (x, g), v = ctx.saved_tensors, grads[0].contiguous()
        return None, Convolution.apply(ctx.native, g, v, True), Convolution.apply(ctx.native, x, v, False)


class Block(torch.autograd.Function):
    """Convolution, normalisation by the batch's own moments, scale and shift, ReLU, 2×2 max pooling.

    Returns `(h [Co, H/2, W/2, B], mean [Co], variance [Co])`; the moments carry no gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, native: Native, x: Tensor, w: Tensor, scale: Tensor, shift: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        channels, height, width = w.shape[0], x.shape[1], x.shape[2]
        y = x.new_empty(channels, *x.shape[1:])
        h = x.new_empty(channels, height // 2, width // 2, x.shape[3])
        pooled, chosen = torch.empty_like(h), torch.empty_like(h)
        mean, var = torch.empty_like(scale), torch.empty_like(scale)
        native("forward", dims(x, w), eps, x, w, scale, shift, y, h, pooled, chosen, mean, var)
        ctx.native, ctx.eps = native, eps
        ctx.save_for_backward(x, w, scale, y, pooled, chosen, mean, var)
        ctx.mark_non_differentiable(mean, var)
        return h, mean, var

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        by_x = ctx.needs_input_grad[1]
        found = BlockBack.apply(ctx.native, ctx.eps, by_x, grads[0].contiguous(), *ctx.saved_tensors)
        return None, *found, None


class BlockBack(torch.autograd.Function):
    """The way back through a block: the gradients by x (or None), w, scale and shift."""

    @staticmethod
    def forward(
        ctx: Any,
        native: Native,
        eps: float,
        by_x: bool,
        gh: Tensor,
        x: Tensor,
        w: Tensor,
        scale: Tensor,
        *rest: Any,
    ) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
        dx = torch.empty_like(x) if by_x else None
        dw, dscale, dshift = torch.empty_like(w), torch.empty_like(scale), torch.empty_like(scale)
        native("backward", dims(x, w), eps, gh, x, w, scale, *rest, dx, dw, dscale, dshift)
        ctx.native, ctx.eps = native, eps
        ctx.save_for_backward(gh, x, w, scale, *rest)
        ctx.set_materialize_grads(False)
        return dx, dw, dscale, dshift

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        by_x = ctx.needs_input_grad[4]
        given = (None if g is None else g.contiguous() for g in grads)
        found = BlockTwice.apply(ctx.native, ctx.eps, by_x, *given, *ctx.saved_tensors)
        return None, None, None, *found, *(None for _ in ctx.saved_tensors[4:])


class BlockTwice(torch.autograd.Function):
    """The way back through `BlockBack`: from adjoints of what it returns to those of gh, x, w, scale."""

    @staticmethod
    def forward(
        ctx: Any,
        native: Native,
        eps: float,
        by_x: bool,
        ax: Tensor | None,
        aw: Tensor | None,
        ascale: Tensor | None,
        ashift: Tensor | None,
        *saved: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        gh, x, w, scale = saved[:4]
        aw = torch.zeros_like(w) if aw is None else aw
        ascale = torch.zeros_like(scale) if ascale is None else ascale
        ashift = torch.zeros_like(scale) if ashift is None else ashift
        dx = torch.empty_like(x) if by_x else None
        dgh, dw, dscale = torch.empty_like(gh), torch.empty_like(w), torch.empty_like(scale)
        s1, s0 = torch.empty_like(scale), torch.empty_like(scale)  # room for sums on the way
        native("twice", dims(x, w), eps, ax, aw, ascale, ashift, *saved, s1, s0, dgh, dx, dw, dscale)
        return dgh, dx, dw, dscale

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError(
            "the native convolution block can be differentiated twice, not three times: "
            "set QUICKSTUDY_KERNELS=torch"
        )
