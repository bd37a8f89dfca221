"""A net that averages batch statistics while it computes is refused: a task would depend on those before it.

Torch's kernels write the averages they are given without a word, not even a higher version of the tensor.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from quickstudy.errors import UserError

ORDER = "input weight bias running_mean running_var training"
WRITES: dict[Any, tuple[list[str], str, bool]] = {
    F.batch_norm: ([*inspect.signature(F.batch_norm).parameters], "training", False),
    F.instance_norm: ([*inspect.signature(F.instance_norm).parameters], "use_input_stats", True),
    torch.batch_norm: (ORDER.split(), "training", False),
}
"""What may average: its arguments in order, that which says whether it does, and what that usually is."""
_looked_at: WeakKeyDictionary[nn.Module, set[bool]] = WeakKeyDictionary()


@contextmanager
def averaging_refused(net: nn.Module) -> Iterator[None]:
    """Look, in the first call of a net in training and in its first in evaluation, whether it averages.

    Raises:
        UserError: it does.
    """
    modes = _looked_at.setdefault(net, set())
    if net.training in modes:
        yield
        return
    with _Looking(net):
        yield
    modes.add(net.training)


class _Looking(TorchFunctionMode):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in WRITES:
            order, says, usual = WRITES[func]
            given = dict(zip(order, args, strict=False)) | kwargs
            if given.get(says, usual) and self.holds(given.get("running_mean")):
                raise UserError(
                    f"the net averages batch statistics itself ({func.__name__} with running_mean), so that "
                    "a task would depend on those before it: use quickstudy.nets.BatchNorm, or no averages"
                )
        return func(*args, **kwargs)

    def holds(self, tensor: object) -> bool:
        """Whether the net keeps this tensor from call to call."""
        places = (p for m in self.net.modules() for p in (m._parameters, m._buffers, vars(m)))
        return tensor is not None and any(tensor is v for place in places for v in place.values())
