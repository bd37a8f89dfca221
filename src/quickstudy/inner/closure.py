"""What a function uses besides its arguments: found by watching it run, and replaced when it runs again.

As `jax.closure_convert`, for functions of torch: a loss closes over a task's examples and over what is learned
but not adapted, and whoever differentiates it by hand has to know these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only


class Watched(TorchFunctionMode):
    """Collect in `found` the tensors used within this block that were neither given nor made in it.

    What a `torch.autograd.Function` is applied to is not seen.

    Args:
        given: the function's own arguments.
        found: by `id`, in the order of use; one dictionary may serve several blocks.

    >>> import torch
    >>> x, w, found = torch.ones(2), torch.ones(2), {}
    >>> with Watched([x], found):
    ...     y = (2 * x) @ w
    >>> [v is w for v in found.values()]
    [True]
    """

    def __init__(self, given: Iterable[Any], found: dict[int, Tensor]) -> None:
        super().__init__()
        self.known = {id(v): v for v in given}  # held, so that no id is given out twice
        self.found = found

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        for v in tree_leaves((args, kwargs)):
            if isinstance(v, Tensor) and id(v) not in self.known:
                self.found[id(v)] = v
        made = func(*args, **kwargs)
        for v in tree_leaves(made):
            if isinstance(v, Tensor) and id(v) not in self.found:
                self.known[id(v)] = v
        return made


class Replaced(TorchFunctionMode):
    """Within this block other tensors stand in for those that were found.

    Args:
        stand_ins: by the `id` of what they replace.
    """

    def __init__(self, stand_ins: dict[int, Tensor]) -> None:
        super().__init__()
        self.stand_ins = stand_ins

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        args, kwargs = tree_map_only(Tensor, self.stand_in, (args, kwargs or {}))
        return func(*args, **kwargs)

    def stand_in(self, tensor: Tensor) -> Tensor:
        """What replaces a tensor, or itself."""
        return self.stand_ins.get(id(tensor), tensor)
