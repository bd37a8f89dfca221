"""What a function uses besides its arguments: found by watching it run, and replaced when it runs again.

As `jax.closure_convert`, for functions of torch: a loss closes over a task's examples, and over what is
learned but not adapted; whoever differentiates it by hand has to know these.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from weakref import ref

from torch import Tensor
from torch.overrides import TorchFunctionMode

from quickstudy.errors import UserError


class Earlier:
    """Tensors that were given to, or made in, blocks that are over; they are not kept alive.

    >>> import torch
    >>> x, earlier = torch.ones(2), Earlier()
    >>> earlier.add([x])
    >>> x in earlier, torch.ones(2) in earlier
    (True, False)
    """

    def __init__(self) -> None:
        self.refs: dict[int, ref[Tensor]] = {}
        self.left_out: list[Tensor] = []

    def __contains__(self, v: Tensor) -> bool:
        return id(v) in self.refs and self.refs[id(v)]() is v

    def add(self, made: Iterable[Tensor]) -> None:
        """Tensors of a block that is over."""
        out = {id(v) for v in self.left_out}
        self.refs = {i: at for i, at in self.refs.items() if at() is not None}
        self.refs.update((id(v), ref(v)) for v in made if id(v) not in out)

    def leave_out(self, tensors: Iterable[Tensor]) -> None:
        """These may be used at any time."""
        self.left_out += tensors


class Watched(TorchFunctionMode):
    """Collect in `found` the tensors used within this block that were neither given nor made in it.

    What a `torch.autograd.Function` is applied to is not seen.

    Args:
        given: the function's own arguments.
        found: by `id`, in the order of use; one dictionary may serve several blocks.
        earlier: of other blocks, what this one must not use.

    Raises:
        UserError: it does.

    >>> import torch
    >>> x, w, found = torch.ones(2), torch.ones(2), {}
    >>> with Watched([x], found, Earlier()):
    ...     y = (2 * x) @ w
    >>> [v is w for v in found.values()]
    [True]
    """

    def __init__(self, given: Iterable[Tensor], found: dict[int, Tensor], earlier: Earlier) -> None:
        super().__init__()
        self.known = {id(v): v for v in given}  # held, so that no id is given out twice
        self.found, self.earlier = found, earlier

    def __exit__(self, *error: Any) -> None:
        self.earlier.add(self.known.values())
        super().__exit__(*error)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        for v in tensors((args, kwargs)):
            if id(v) not in self.known and id(v) not in self.found:
                if v in self.earlier:
                    raise UserError("the support loss, or the rule, keeps tensors from step to step")
                self.found[id(v)] = v
        made = func(*args, **kwargs)
        for v in tensors(made):
            if id(v) not in self.found:
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
        args, kwargs = self.replaced(args), self.replaced(kwargs or {})
        return func(*args, **kwargs)

    def replaced(self, value: Any) -> Any:
        """The same nested tuples, lists and dictionaries with the stand-ins in them."""
        kind = type(value)
        if kind is tuple or kind is list:
            return kind([self.replaced(v) for v in value])
        if kind is dict:
            return {k: self.replaced(v) for k, v in value.items()}
        if isinstance(value, (tuple, list)):  # of a kind of its own, such as a named tuple
            parts = [self.replaced(v) for v in value]
            if all(map(operator.is_, parts, value)):
                return value
            return kind._make(parts) if hasattr(kind, "_make") else kind(parts)
        if isinstance(value, dict):
            other = copy.copy(value)
            other.update({k: self.replaced(v) for k, v in value.items()})
            return other
        return self.stand_ins.get(id(value), value)


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists and dictionaries; faster than torch's walk, for every call."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for v in value:
            yield from tensors(v)
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))
