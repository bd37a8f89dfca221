"""The precision in which nets compute: that of their weights, or bf16 by torch's autocast.

Mixed precision (Micikevicius et al. 2018, arXiv 1710.03740) with bfloat16, which has float32's range, so that
no loss need be scaled (Kalamkar et al. 2019, arXiv 1905.12322). It ends where the net does: distances, losses
and updates, the moments of `BatchNorm`, gradients and weights stay float32. So no gradient is taken within
autocast, which would cast again what was computed in float32 on the way there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from quickstudy.errors import UserError, unknown
from quickstudy.inner.below import inside_map
from quickstudy.nets import native

Precision = Literal["float32", "bf16"]
_now: ContextVar[Precision] = ContextVar("precision", default="float32")
_TRANSPOSED = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
_PRODUCTS = (F.linear, F.conv1d, F.conv2d, F.conv3d, *_TRANSPOSED)


@contextmanager
def computing_in(precision: Precision) -> Iterator[None]:
    """Within this block learners' nets compute in bf16, or in the precision of their weights ("float32").

    Native kernels, which have no bf16, are off where it is used.

    Raises:
        UserError: no precision has that name.

    >>> from quickstudy.learners import ProtoNet
    >>> from quickstudy.nets import mlp
    >>> learner, x = ProtoNet(mlp(2)), torch.rand(4, 2)
    >>> with computing_in("bf16"):
    ...     logits = learner.adapt(x, [0, 0, 1, 1])(x)
    >>> logits.dtype, torch.equal(logits, learner.adapt(x, [0, 0, 1, 1])(x))
    (torch.float32, False)
    """
    if precision not in get_args(Precision):
        raise unknown("precision", str(precision), get_args(Precision))
    token = _now.set(precision)
    try:
        with native.allowing(precision == "float32"):
            yield
    finally:
        _now.reset(token)


def precision_now() -> Precision:
    """What `computing_in` says of this place."""
    return _now.get()


def computed(net: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """`net(x)`, or of more inputs, in the precision of this place; float32 where that is bf16.

    Raises:
        UserError: bf16 is asked of a net in another precision than float32.

    >>> net, x = torch.nn.Linear(1, 1), torch.rand(3, 1)
    >>> with computing_in("bf16"):
    ...     y = computed(net, x)
    >>> torch.equal(y, net.bfloat16()(x.bfloat16()))
    True
    """
    if precision_now() == "float32":
        return net(*inputs)
    for x in inputs:
        if x.is_floating_point() and x.dtype != torch.float32:
            kind = str(x.dtype).removeprefix("torch.")
            raise UserError(f"bf16 is for learners in float32, not {kind}: call learner.float() first")
    by_hand = _ByHand() if inside_map() else nullcontext()
    # Torch's cache would keep cast weights, and every inner step's, while a user's own autocast lasts.
    with torch.autocast(inputs[0].device.type, torch.bfloat16, cache_enabled=False), by_hand:
        return net(*inputs).float()


class _ByHand(TorchFunctionMode):
    """Casts what layers are given: within a map autocast sees only what torch makes of them, of which on a
    CPU it knows no convolution, and adds a linear layer's bias in float32."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _PRODUCTS:
            args, kwargs = tuple(map(_cast, args)), {k: _cast(v) for k, v in kwargs.items()}
        return func(*args, **kwargs)


def _cast(value: Any) -> Any:
    return value.to(torch.bfloat16) if isinstance(value, Tensor) else value
