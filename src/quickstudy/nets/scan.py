"""A recurrent net over a sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor

S = TypeVar("S", bound=tuple[Tensor, ...])


def scan(cell: Callable[[Tensor, S], S], inputs: Iterable[Tensor], state: S) -> tuple[Tensor, S]:
    """Apply a cell to each input in turn: what each step gives out `[L, …, H]`, and the state after the last.

    A cell may have two parts, `seen` of an input alone, and `step` of that and a state: the first then is one
    operation for all inputs.

    Args:
        cell: inputs `[…, D]` and a state → the next state, whose first tensor `[…, H]` is what is given out.
        inputs: `[L, …, D]`.
        state: before the first, as `cell.start` makes it.

    >>> from quickstudy.nets import LSTMCell
    >>> cell, x = LSTMCell(3, 4), torch.randn(7, 2, 3)
    >>> outputs, (h, c) = scan(cell, x, cell.start(x[0]))
    >>> outputs.shape, bool(torch.equal(outputs[-1], h))
    (torch.Size([7, 2, 4]), True)
    """
    outputs, step = [], cell
    if hasattr(cell, "seen") and hasattr(cell, "step"):
        inputs, step = cell.seen(inputs), cell.step
    for x in inputs:
        state = step(x, state)
        outputs.append(state[0])
    return torch.stack(outputs), state
