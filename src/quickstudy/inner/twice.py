"""Second derivatives where torch's fast kernels have none, or wrong ones."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from threading import Lock
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from quickstudy.nets import native

_lock, _blocks = Lock(), [0]
_by_math = ExitStack()
_BY_CHANNEL = (F.batch_norm, F.instance_norm)


@contextmanager
def twice_differentiable(mapped: bool) -> Iterator[None]:
    """Within this block what a net computes can be differentiated twice.

    Args:
        mapped: whether `torch.func.vmap` runs the code.
    """
    with attention_by_math(), native.second_order(), _ScaledApart() if mapped else nullcontext():
        yield


@contextmanager
def attention_by_math() -> Iterator[None]:
    """Without the fused attention kernels, which have one derivative only, and no rule for a map; nor the
    whole transformer layer that torch puts together where nothing is trained, which has neither.

    Torch's choice of kernels holds for all threads, so of blocks that overlap, in whatever threads, the first
    changes it and the last changes it back.
    """
    with _lock:
        if not _blocks[0]:
            _by_math.enter_context(sdpa_kernel(SDPBackend.MATH))
            fused_layers = torch.backends.mha.get_fastpath_enabled()
            _by_math.callback(torch.backends.mha.set_fastpath_enabled, fused_layers)
            torch.backends.mha.set_fastpath_enabled(False)
        _blocks[0] += 1
    try:
        yield
    finally:
        with _lock:
            _blocks[0] -= 1
            if not _blocks[0]:
                _by_math.close()


class _ScaledApart(TorchFunctionMode):
    """Normalise without scale and shift, which then follow as steps of their own.

    Under vmap torch takes the mean and variance in a scale's gradient for constants: the second derivative is
    then wrong, without any error.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is not F.layer_norm and func not in _BY_CHANNEL:
            return func(*args, **(kwargs or {}))
        given = inspect.signature(func).bind(*args, **(kwargs or {})).arguments
        weight, bias = given.pop("weight", None), given.pop("bias", None)
        y = func(**given)
        if func in _BY_CHANNEL:  # [C] beside [B, C, …]
            weight, bias = (v if v is None else v.view(-1, *[1] * (y.ndim - 2)) for v in (weight, bias))
        y = y if weight is None else y * weight
        return y if bias is None else y + bias
