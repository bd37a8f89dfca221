"""A block of the convolutional net as one operation, with its way back and the way back of that.

Pictures lie as `[C, H, W, B]` here, a task's examples side by side; see `conv_block.c` for the formulas.
Under `torch.func.vmap` all tensors have one more dimension before these, over tasks: one call of a kernel
serves all tasks, on several processors. A block can be differentiated twice, its convolution any number of
times.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quickstudy.nets.native import Dims, Native


class Kernel(torch.autograd.Function):
    """An operation of one task that `torch.func.vmap` makes one of many tasks."""

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> Any:
        outputs = cls.apply(*(_by_task(v, d, info.batch_size) for v, d in zip(inputs, in_dims, strict=True)))
        if isinstance(outputs, Tensor):
            return outputs, 0
        return outputs, tuple(None if v is None else 0 for v in outputs)


def _by_task(value: Any, dim: int | None, tasks: int) -> Any:
    """A tensor with its dimension over tasks first, without copies where it has none; other values as is."""
    if not isinstance(value, Tensor):
        return value
    return value.unsqueeze(0).expand(tasks, *value.shape) if dim is None else value.movedim(dim, 0)


def _run(native: Native, name: str, number: float, x: Tensor, w: Tensor, *tensors: Tensor | None) -> None:
    """Run a kernel for the sizes of a convolution of `[*T, Ci, H, W, B]` by `[*T, Co, Ci, 3, 3]`."""
    sizes = Dims(x.shape[-1], w.shape[-3], w.shape[-4], x.shape[-3], x.shape[-2])
    native(name, sizes, number, x.shape[0] if x.ndim == 5 else 0, *tensors)


def _packed(value: Tensor, many: bool) -> Tensor:
    """The same numbers, those of each task without gaps; shared by all tasks where they were."""
    if value.is_contiguous():
        return value
    return value[0].contiguous().expand(value.shape) if many and value.stride(0) == 0 else value.contiguous()


class Convolution(Kernel):
    """`[Ci, H, W, B]` by `[Co, Ci, 3, 3]`, with a border of zeros: `[Co, H, W, B]`.

    Transposed it is the gradient of that by its input: from `[Co, H, W, B]` to `[Ci, H, W, B]`.
    """

    @staticmethod
    def forward(native: Native, x: Tensor, w: Tensor, transposed: bool) -> Tensor:
        x, w = (_packed(v, x.ndim == 5) for v in (x, w))
        y = x.new_empty(*x.shape[:-4], w.shape[-3 if transposed else -4], *x.shape[-3:])
        _run(native, "conv", transposed, x, w, x, w, y)
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.native, x, w, ctx.transposed = inputs
        ctx.save_for_backward(x, w)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (x, w), g = ctx.saved_tensors, grads[0]
        _, by_x, by_w, _ = ctx.needs_input_grad
        pair = (g, x) if ctx.transposed else (x, g)
        return (
            None,
            Convolution.apply(ctx.native, g, w, not ctx.transposed) if by_x else None,
            Correlation.apply(ctx.native, *pair) if by_w else None,
            None,
        )


class Correlation(Kernel):
    """The gradient of a convolution by its weights: `[Ci, H, W, B]`, `[Co, H, W, B]` → `[Co, Ci, 3, 3]`."""

    @staticmethod
    def forward(native: Native, x: Tensor, g: Tensor) -> Tensor:
        x, g = (_packed(v, x.ndim == 5) for v in (x, g))
        w = x.new_empty(*x.shape[:-4], g.shape[-4], x.shape[-4], 3, 3)
        _run(native, "correlate", 0, x, w, x, g, w)
        return w

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.native, x, g = inputs
        ctx.save_for_backward(x, g)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (x, g), v = ctx.saved_tensors, grads[0]
        return None, Convolution.apply(ctx.native, g, v, True), Convolution.apply(ctx.native, x, v, False)


class Block(Kernel):
    """Convolution, normalisation by the batch's own moments, scale and shift, ReLU, 2×2 max pooling.

    Returns `h [Co, H/2, W/2, B]`, `mean [Co]` and `variance [Co]` of what the convolution made, and three
    tensors for the way back; only h carries a gradient.
    """

    @staticmethod
    def forward(
        native: Native, x: Tensor, w: Tensor, scale: Tensor, shift: Tensor, eps: float
    ) -> tuple[Tensor, ...]:
        x, w, scale, shift = (_packed(v, x.ndim == 5) for v in (x, w, scale, shift))
        lead, channels, (height, width, examples) = x.shape[:-4], w.shape[-4], x.shape[-3:]
        y = x.new_empty(*lead, channels, height, width, examples)
        h = x.new_empty(*lead, channels, height // 2, width // 2, examples)
        pooled, chosen = torch.empty_like(h), torch.empty_like(h)
        mean, var = x.new_empty(*lead, channels), x.new_empty(*lead, channels)
        outputs = (h, mean, var, y, pooled, chosen)
        _run(native, "forward", eps, x, w, x, w, scale, shift, *outputs)
        return outputs

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.native, x, w, scale, _, ctx.eps = inputs
        ctx.save_for_backward(x, w, scale, *output[1:])
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        by_x = ctx.needs_input_grad[1]
        if grads[0] is None:
            return None, None, None, None, None, None
        return None, *BlockBack.apply(ctx.native, ctx.eps, by_x, grads[0], *ctx.saved_tensors), None


class BlockBack(Kernel):
    """The way back through a block: the gradients by x (or None), w, scale and shift."""

    @staticmethod
    def forward(
        native: Native, eps: float, by_x: bool, gh: Tensor, x: Tensor, w: Tensor, scale: Tensor, *rest: Tensor
    ) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
        given = [_packed(v, x.ndim == 5) for v in (gh, x, w, scale, *rest)]
        dx = x.new_empty(x.shape) if by_x else None
        dw, dscale, dshift = w.new_empty(w.shape), scale.new_empty(scale.shape), scale.new_empty(scale.shape)
        _run(native, "backward", eps, x, w, *given, dx, dw, dscale, dshift)
        return dx, dw, dscale, dshift

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.native, ctx.eps, _, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        by_x = ctx.needs_input_grad[4]
        found = BlockTwice.apply(ctx.native, ctx.eps, by_x, *grads, *ctx.saved_tensors)
        return None, None, None, *found, *(None for _ in ctx.saved_tensors[4:])


class BlockTwice(Kernel):
    """The way back through `BlockBack`: from adjoints of what it returns to those of gh, x, w, scale."""

    @staticmethod
    def forward(
        native: Native,
        eps: float,
        by_x: bool,
        ax: Tensor | None,
        aw: Tensor | None,
        ascale: Tensor | None,
        ashift: Tensor | None,
        *saved: Tensor,
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        gh, x, w, scale = saved[:4]
        aw = torch.zeros_like(w) if aw is None else aw
        ascale = torch.zeros_like(scale) if ascale is None else ascale
        ashift = torch.zeros_like(scale) if ashift is None else ashift
        given = [v if v is None else _packed(v, x.ndim == 5) for v in (*saved, ax, aw, ascale, ashift)]
        dgh, dw, dscale = gh.new_empty(gh.shape), w.new_empty(w.shape), scale.new_empty(scale.shape)
        dx = x.new_empty(x.shape) if by_x else None
        sums = scale.new_empty(scale.shape), scale.new_empty(scale.shape)
        _run(native, "twice", eps, x, w, *given, dgh, dx, dw, dscale, *sums)
        return dgh, dx, dw, dscale

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError(
            "the native convolution block can be differentiated twice, not three times: "
            "set QUICKSTUDY_KERNELS=torch"
        )
