"""Beneath a map over tasks: tensors of one task as those of all tasks, and back.

Inside `torch.func.vmap` a tensor looks like one task's. What it stands for has a first dimension over tasks,
and there torch.autograd, which knows nothing of maps, notes what is computed.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor
from torch._C import _functorch
from torch._C._functorch import TransformType
from torch._functorch.pyfunctorch import temporarily_pop_interpreter_stack

from quickstudy.errors import UserError


def inside_map() -> bool:
    """Whether `torch.func.vmap` runs this code."""
    top = _functorch.peek_interpreter_stack()
    return top is not None and top.key() == TransformType.Vmap


class Alone:
    """Where no map runs: a task's tensors are what they look like."""

    count = 1
    """Tasks."""
    randomness = "different"
    """How the map draws, as `torch.func.vmap` has it: for each task anew, the same for all, or not."""

    def unwrapped(self, value: Tensor) -> Tensor:
        """`[T, …]`, of a task's tensor; without copies where all tasks share it."""
        return value

    def holds(self, value: Tensor) -> bool:
        """Whether a task's tensor is its own, not one that all tasks share."""
        return True

    def wrapped(self, value: Tensor) -> Tensor:
        """A task's tensor, of `[T, …]`."""
        return value

    def outside_vmap(self) -> AbstractContextManager[None]:
        """Within this block the map is left."""
        return nullcontext()


class Below(Alone):
    """What lies beneath the map that runs this code.

    Raises:
        UserError: another transform of torch.func runs it, or several do.
    """

    def __init__(self) -> None:
        map_: Any = _functorch.peek_interpreter_stack()
        if len(_functorch.get_interpreter_stack()) > 1 or map_.key() != TransformType.Vmap:
            raise UserError("an inner loop runs in one map over tasks, in no other transform of torch.func")
        of_map = _functorch.CVmapInterpreterPtr(map_)
        self.level, self.count = map_.level(), of_map.batchSize()
        self.randomness = of_map.randomness().name.lower()

    def holds(self, value: Tensor) -> bool:
        return _functorch.is_batchedtensor(value) and _functorch.maybe_get_level(value) == self.level

    def unwrapped(self, value: Tensor) -> Tensor:
        if not self.holds(value):
            return value.expand(self.count, *value.shape)
        return _functorch.get_unwrapped(value).movedim(_functorch.maybe_get_bdim(value), 0)

    def wrapped(self, value: Tensor) -> Tensor:
        return _functorch._add_batch_dim(value, 0, self.level)

    def outside_vmap(self) -> AbstractContextManager[None]:
        return temporarily_pop_interpreter_stack()


def below() -> Alone:
    """What lies beneath the map that runs this code, if one does.

    >>> def tripled(x: Tensor) -> Tensor:
    ...     return below().wrapped(3 * below().unwrapped(x))
    >>> torch.func.vmap(tripled)(torch.ones(2)), tripled(torch.ones(2))
    (tensor([3., 3.]), tensor([3., 3.]))
    """
    return Below() if _functorch.peek_interpreter_stack() else Alone()
