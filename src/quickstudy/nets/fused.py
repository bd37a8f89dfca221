"""A block of the convolutional net as one operation, with its way back and the way back of that.

Pictures lie as `[C, H, W, B]` here, a task's examples side by side; see `conv_block.c` for the formulas.
Under `torch.func.vmap` all tensors have one more dimension before these, over tasks: one call of a kernel
serves all tasks, on several processors. A block can be differentiated twice.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from quickstudy.nets.native import Dims, Native


class Kernel(torch.autograd.Function):
    """An operation of one task that `torch.func.vmap` makes one of many tasks."""

    @classmethod
    def apply(cls, *inputs: Any) -> Any:
        """One call, as torch's own operations are, also to whoever watches these (`inner/closure.py`)."""
        if has_torch_function(inputs):
            return handle_torch_function(cls.apply, inputs, *inputs)
        return super().apply(*inputs)

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
    native(name, sizes, number, x.shape[0] if x.ndim == 5 else None, *tensors)


def _packed(value: Any, many: bool) -> Any:
    """The same numbers, those of each task without gaps; shared by all tasks where they were."""
    if value is None or value.is_contiguous():
        return value
    shared = many and len(value) > 0 and value.stride(0) == 0
    return value[0].contiguous().expand(value.shape) if shared else value.contiguous()


class Block(Kernel):
    """3×3 convolution, normalisation, scale and shift, ReLU, 2×2 max pooling of `[Ci, H, W, B]`.

    Returns `h [Co, H/2, W/2, B]`, then `mean [Co]` and `variance [Co]` of what the convolution made, by which
    it normalises, and what the way back needs. Only h carries a gradient, unless `carry`: then the moments do
    too, and the block can be differentiated once. Without `eps` it does not normalise, and the two are None.
    """

    @staticmethod
    def forward(
        native: Native,
        x: Tensor,
        w: Tensor,
        scale: Tensor,
        shift: Tensor,
        eps: float | None,
        carry: bool,
    ) -> tuple[Tensor | None, ...]:
        x, w, scale, shift = (_packed(v, x.ndim == 5) for v in (x, w, scale, shift))
        lead, channels, (height, width, examples) = x.shape[:-4], w.shape[-4], x.shape[-3:]
        h = x.new_empty(*lead, channels, height // 2, width // 2, examples)
        pooled, chosen = torch.empty_like(h), torch.empty_like(h)
        mean = var = y = None
        if eps is not None:
            y = x.new_empty(*lead, channels, height, width, examples)
            mean, var = x.new_empty(*lead, channels), x.new_empty(*lead, channels)
        outputs = (h, mean, var, y, pooled, chosen)
        _run(native, "forward", eps or 0.0, x, w, x, w, scale, shift, *outputs)
        return outputs

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.native, x, w, scale, _, eps, ctx.carry = inputs
        ctx.eps = eps or 0.0
        ctx.save_for_backward(x, w, scale, *output[1:])
        still = output[3:] if ctx.carry else output[1:]
        ctx.mark_non_differentiable(*(v for v in still if v is not None))
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        gh, gmean, gvar, *_ = grads
        gh = torch.zeros_like(ctx.saved_tensors[-1]) if gh is None else gh
        found = BlockBack.apply(
            ctx.native, ctx.eps, ctx.needs_input_grad[1], gmean, gvar, gh, *ctx.saved_tensors
        )
        return None, *found, None, None


class BlockBack(Kernel):
    """The way back through a block: the gradients by x (or None), w, scale and shift."""

    @staticmethod
    def forward(
        native: Native,
        eps: float,
        by_x: bool,
        gmean: Tensor | None,
        gvar: Tensor | None,
        gh: Tensor,
        x: Tensor,
        w: Tensor,
        scale: Tensor,
        *rest: Tensor | None,
    ) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
        given = [_packed(v, x.ndim == 5) for v in (gh, x, w, scale, *rest, gmean, gvar)]
        dx = x.new_empty(x.shape) if by_x else None
        dw, dscale, dshift = w.new_empty(w.shape), scale.new_empty(scale.shape), scale.new_empty(scale.shape)
        _run(native, "backward", eps, x, w, *given, dx, dw, dscale, dshift)
        return dx, dw, dscale, dshift

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.native, ctx.eps, _, gmean, gvar, *tensors = inputs
        ctx.carried = gmean is not None or gvar is not None
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        if ctx.carried:
            raise RuntimeError(
                "moments of the native convolution block can be differentiated once, not twice: "
                "set QUICKSTUDY_KERNELS=torch"
            )
        by_x = ctx.needs_input_grad[6]
        found = BlockTwice.apply(ctx.native, ctx.eps, by_x, *grads, *ctx.saved_tensors)
        return None, None, None, None, None, *found, *(None for _ in ctx.saved_tensors[4:])


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
        *saved: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        gh, x, w, scale = saved[:4]
        aw = torch.zeros_like(w) if aw is None else aw
        ascale = torch.zeros_like(scale) if ascale is None else ascale
        ashift = torch.zeros_like(scale) if ashift is None else ashift
        given = [_packed(v, x.ndim == 5) for v in (*saved, ax, aw, ascale, ashift)]
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


def is_right(native: Native, dtype: torch.dtype) -> bool:
    """Whether a block of three tasks, its gradient and the gradient of that are what torch makes of them: of
    few examples, and of more than fill the registers of any processor at once."""
    return all(_is_right(native, dtype, examples) for examples in (4, 19))


def _is_right(native: Native, dtype: torch.dtype, examples: int) -> bool:
    x, w = (torch.arange(n, dtype=dtype).sin() for n in (3 * 2 * 5 * 6 * examples, 3 * 7 * 2 * 9))
    scale = torch.linspace(-1, 2, 21, dtype=dtype).view(3, 7)
    given = [x.view(3, 2, 5, 6, examples), w.view(3, 7, 2, 3, 3), scale, scale.cos()]
    given = [v.requires_grad_() for v in given]

    def theirs(x: Tensor, w: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        y = F.conv2d(x.permute(3, 0, 1, 2), w, padding=1)
        var, mean = torch.var_mean(y, (0, 2, 3), correction=0, keepdim=True)
        z = (y - mean) * (var + 0.1).rsqrt() * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)
        return F.max_pool2d(F.relu(z), 2).permute(1, 2, 3, 0)

    def all_of(h: Tensor) -> tuple[Tensor, ...]:
        first = torch.autograd.grad(h.sin().sum(), given, create_graph=True)
        return h, *first, *torch.autograd.grad(torch.stack([g.square().sum() for g in first]).sum(), given)

    with torch.enable_grad():
        found = all_of(Block.apply(native, *given, 0.1, False)[0])
        wanted = all_of(torch.stack([theirs(*(v[t] for v in given)) for t in range(3)]))
    close = 1e-3 if dtype == torch.float32 else 1e-9
    return all(torch.allclose(a, b, rtol=close, atol=close) for a, b in zip(found, wanted, strict=True))
