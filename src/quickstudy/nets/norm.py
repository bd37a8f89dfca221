"""Batch normalisation that says whose statistics it uses (Ioffe and Szegedy 2015, 1502.03167).

In few-shot learning the same layer means different things, and published numbers differ by it:

==========  =====================================================  ============
statistics  a query example is normalised by                       transductive
==========  =====================================================  ============
batch       the mean and variance of the query set it arrives in   yes
support     those of the task's support set                        no
running     averages over the meta-training tasks                  no
==========  =====================================================  ============

A layer never changes itself: it notes the moments it saw in the `Moments` of the call. Called outside
`normalised_by` it does as torch's: the batch's statistics in training mode, the running averages in `eval()`.
A call also says in which inner step it is, for nets with a layer for each step (`per_step.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.errors import UserError

Statistics = Literal["batch", "support", "running"]
Norm = Literal["support", "batch", "running", "group", "layer", "none"]
Pair = tuple[Tensor, Tensor]
AVERAGING = 0.05
"""How far the running averages move at a meta-step towards the moments of its support sets."""


@dataclass(eq=False)
class Moments:
    """Mean and variance `[C]` of each `BatchNorm` in one call of a net, and whether to use or to note them.

    Args:
        source: "batch" uses the batch's own and notes them, "given" uses those noted before, "running" the
            layers' buffers.
        seen: what was noted, by layer: one pair for each time the call used it, in order.
        fused: use torch's fused kernel, several times faster; what it notes carries no gradient.
        noting: whether to note anything; not for queries, of which there may be any number.
        step: the inner step in which the net is called; None where it is called in none, as for queries.
    """

    source: Literal["batch", "given", "running"] = "batch"
    seen: dict[BatchNorm, list[Pair]] = field(default_factory=dict)
    fused: bool = False
    noting: bool = True
    step: int | None = None

    def note(self, layer: BatchNorm, mean: Tensor, var: Tensor) -> None:
        """Keep what a layer saw."""
        if self.noting:
            if self.fused:
                mean, var = mean.detach(), var.detach()
            self.seen.setdefault(layer, []).append((mean, var))


class _Block:
    """A `normalised_by` block: its moments, and how often each layer took one that was given."""

    def __init__(self, moments: Moments) -> None:
        self.moments = moments
        self.taken: Counter[BatchNorm] = Counter()

    def take(self, layer: BatchNorm) -> Pair:
        pairs = self.moments.seen[layer]
        self.taken[layer] += 1
        return pairs[(self.taken[layer] - 1) % len(pairs)]  # a further call of the net begins again


_active: ContextVar[_Block | None] = ContextVar("moments", default=None)


@contextmanager
def normalised_by(moments: Moments) -> Iterator[Moments]:
    """Within this block every `BatchNorm` takes its statistics as `moments.source` says.

    "batch" uses the batch's own and notes them, "given" uses those noted before, "running" the buffers.

    >>> net, x = BatchNorm(2), torch.randn(8, 2)
    >>> with normalised_by(Moments()) as support:
    ...     y = net(x)
    >>> with normalised_by(Moments("given", support.seen)):
    ...     bool(torch.allclose(net(x[:1]), y[:1]))
    True
    """
    token = _active.set(_Block(moments))
    try:
        yield moments
    finally:
        _active.reset(token)


def inner_step() -> int | None:
    """The inner step in which a net is called; None in none.

    >>> with normalised_by(Moments(step=2)):
    ...     inner_step()
    2
    """
    block = _active.get()
    return block.moments.step if block else None


class BatchNorm(nn.Module):
    """Normalise each channel of `[B, C, …]`, then scale and shift it.

    Args:
        channels: C.
        eps: added to the variance.
        averaging: whether it normalises by its running averages in `eval()`, where nobody says otherwise.
    """

    mean: Tensor
    var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5, averaging: bool = True) -> None:
        super().__init__()
        self.averaging = averaging
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("var", torch.ones(channels))
        self.eps = eps

    @property
    def averaged(self) -> bool:
        """Whether the running averages are other than at the beginning."""
        return bool((self.mean != 0).any() or (self.var != 1).any())

    def average(self, mean: Tensor, var: Tensor) -> None:
        """Move the running averages towards these moments `[C]`, as the outer loop does after a meta-step."""
        self.mean.lerp_(mean, AVERAGING)
        self.var.lerp_(var, AVERAGING)

    @property
    def own(self) -> bool:
        """Whether it normalises by a batch's own moments, called outside of a learner."""
        return self.training or not self.averaging

    def given(self) -> Pair | None:
        """The moments to normalise by, where they are not those of the batch itself."""
        block = _active.get()
        source = block.moments.source if block else "batch" if self.own else "running"
        if block and source == "given":
            return block.take(self)
        return (self.mean, self.var) if source == "running" else None

    def carries(self) -> bool:
        """Whether it normalises by the moments of a batch, and these carry gradients."""
        block = _active.get()
        own = block.moments.source == "batch" if block else self.own
        return own and (block is None or not block.moments.fused)

    def moments(self, x: Tensor, sign: Tensor | float) -> Pair:
        """The mean and the variance `[C]` of the unsigned input, where `x` `[B, C, …]` is `sign` times it."""
        given = self.given()
        if given is not None:
            return given
        dims = [0, *range(2, x.ndim)]
        var, mean = torch.var_mean(x.to(self.weight.dtype), dims, correction=0)  # x may be bf16
        mean = mean * sign
        self.note(mean, var)
        return mean, var

    def affine(self, mean: Tensor, var: Tensor) -> Pair:
        """Scale and shift `[C]` that the layer is with these moments."""
        scale = self.weight * torch.rsqrt(var + self.eps)
        return scale, self.bias - mean * scale

    def normalised(self, x: Tensor, sign: Tensor | float = 1.0) -> Tensor | None:
        """`x`, `sign` times the layer's input, with mean 0 and variance 1 by the fused
        kernel; None where the moments must carry gradients."""
        n = x.numel() // x.shape[1]
        if not self.fused(n) or torch._C._are_functorch_transforms_active():  # whose rules for it are slow
            return None
        mean, var = torch.zeros_like(self.mean), torch.ones_like(self.var)
        y = F.batch_norm(x, mean, var, training=True, momentum=1.0, eps=self.eps)
        self.note(mean * sign, var * ((n - 1) / n))  # torch notes the unbiased variance
        return y

    def fused(self, n: int) -> bool:
        """Whether a channel's n numbers are normalised by their own moments, which need carry no gradient."""
        block = _active.get()
        return block is not None and block.moments.fused and block.moments.source == "batch" and n > 1

    def note(self, mean: Tensor, var: Tensor) -> None:
        """Keep what the layer saw in the moments of this call."""
        block = _active.get()
        if block:
            block.moments.note(self, mean, var)

    def sign(self) -> Tensor:
        """1 or -1 `[C]`: that of each scale."""
        return torch.where(self.weight.detach() < 0, -1.0, 1.0).to(self.weight.dtype)

    def unscaled(self, x: Tensor, sign: Tensor | float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
        """`(y, scale, shift)`, the last two `[C]`: the layer of `sign * x` is `y * scale + shift`."""
        y = self.normalised(x, sign)
        if y is not None:
            return y, self.weight * sign, self.bias
        scale, shift = self.affine(*self.moments(x, sign))
        return x, scale * sign, shift

    def forward(self, x: Tensor) -> Tensor:
        shape = (-1, *[1] * (x.ndim - 2))
        y, scale, shift = self.unscaled(x)
        return y * scale.view(shape) + shift.view(shape)


def make_norm(norm: str, channels: int) -> nn.Module:
    """The layer for a `norm` option: batch, support or running (one layer), group, layer or none."""
    if norm in ("batch", "support", "running"):
        return BatchNorm(channels)
    if norm == "group":
        return nn.GroupNorm(next(g for g in (8, 4, 2, 1) if channels % g == 0), channels)
    if norm == "layer":
        return nn.GroupNorm(1, channels)
    if norm == "none":
        return nn.Identity()
    raise UserError(f"norm is one of batch, support, running, group, layer, none; not {norm!r}")


NORMS = (BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.modules.batchnorm._NormBase)
"""The kinds of layers that normalise, torch's among them."""
