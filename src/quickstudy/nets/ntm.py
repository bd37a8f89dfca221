"""The neural Turing machine: Graves, Wayne, Danihelka 2014, arXiv 1410.5401.

A controller steers heads over a memory. Each finds rows by content, wᶜ, or by moving on from where it was:

    wᵍ = g wᶜ + (1 − g) wₜ₋₁,   w̃(i) = Σⱼ wᵍ(j) s(i − j),   w(i) = w̃(i)^γ / Σⱼ w̃(j)^γ

with a gate g, a distribution s over shifts and a sharpening γ ≥ 1, all of the controller's making.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.nets.lstm import LSTMCell
from quickstudy.nets.memory import added, by_content, erased, read

SHIFTS = (-1, 0, 1)
"""How far a head may move in a step."""
EMPTY = 1e-6
"""What a memory holds at first: next to nothing, alike in all rows (Collier and Beel 2018, 1807.08518)."""
State = tuple[Tensor, ...]
"""What a step gives out `[…, outputs]`, then what it keeps for the next."""


def shifted(weights: Tensor, shift: Tensor) -> Tensor:
    """Weights `[…, R]` moved on by a distribution `[…, 3]` over one row back, none and one ahead, around.

    >>> shifted(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.1, 0.2, 0.7]))
    tensor([0.2000, 0.7000, 0.1000])
    """
    moved = torch.stack([weights.roll(by, -1) for by in SHIFTS], -1)  # […, R, 3]
    return (moved * shift[..., None, :]).sum(-1)


def sharpened(weights: Tensor, power: Tensor) -> Tensor:
    """Weights `[…, R]` to a power `[…]`, brought to a sum of 1.

    >>> sharpened(torch.tensor([0.2, 0.8]), torch.tensor(2.0))
    tensor([0.0588, 0.9412])
    """
    return (power[..., None] * (weights + 1e-12).log()).softmax(-1)


def located(weights: Tensor, content: Tensor, gate: Tensor, shift: Tensor, power: Tensor) -> Tensor:
    """Where heads look next: weights `[…, R]` from where they were and what they seek.

    Args:
        weights: of the step before `[…, R]`.
        content: by content `[…, R]`.
        gate: g `[…]`, 1 for content alone.
        shift: `[…, 3]`, see `shifted`.
        power: γ `[…]`, at least 1.
    """
    mixed = gate[..., None] * content + (1 - gate[..., None]) * weights
    return sharpened(shifted(mixed, shift), power)


class FeedForward(nn.Module):
    """A controller without a state of its own: what it knows of before, the memory knows.

    Args:
        inputs: D.
        hidden: H, units.

    >>> cell, x = FeedForward(3, 4), torch.randn(2, 3)
    >>> (h,) = cell(x, cell.start(x))
    >>> h.shape
    torch.Size([2, 4])
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.from_input = nn.Linear(inputs, hidden)

    def start(self, x: Tensor) -> State:
        """The state before the first of inputs like `x` `[…, D]`: zeros, which nothing looks at."""
        return (x.new_zeros(*x.shape[:-1], self.hidden),)

    def forward(self, x: Tensor, state: State) -> State:
        return (self.from_input(x).tanh(),)


class NTMCell(nn.Module):
    """One step of a neural Turing machine with a read head and a write head.

    A state begins with what the step gives out: the controller's output and what was read, `[…, H + W]`.

    Args:
        inputs: D.
        hidden: H, units of the controller.
        rows: R, of the memory.
        width: W, of a row.
        controller: which kind of net steers the heads, `LSTMCell` or `FeedForward`.

    >>> cell, x = NTMCell(3, hidden=10, rows=8, width=4), torch.randn(2, 3)
    >>> cell(x, cell.start(x))[0].shape
    torch.Size([2, 14])
    """

    controller: Any

    def __init__(
        self,
        inputs: int,
        *,
        hidden: int = 100,
        rows: int = 128,
        width: int = 20,
        controller: Callable[[int, int], nn.Module] = LSTMCell,
    ) -> None:
        super().__init__()
        self.hidden, self.rows, self.width = hidden, rows, width
        self.outputs = hidden + width
        self.controller = controller(inputs + width, hidden)
        # For each of two heads: a key, strength, gate, shift, power; then what the second erases and adds.
        self.parts = [2 * width, 2, 2, 2 * len(SHIFTS), 2, width, width]
        self.steer = nn.Linear(hidden, sum(self.parts))

    def start(self, x: Tensor) -> State:
        """The state before the first of inputs like `x` `[…, D]`: an empty memory, both heads at row 0."""
        around = x.shape[:-1]
        memory = x.new_full((*around, self.rows, self.width), EMPTY)
        at_first = F.one_hot(torch.zeros(2, dtype=torch.long, device=x.device), self.rows).to(x.dtype)
        out, weights = x.new_zeros(*around, self.outputs), at_first.expand(*around, 2, self.rows)
        return out, memory, weights, *self.controller.start(x)

    def forward(self, x: Tensor, state: State) -> State:
        out, memory, weights, *steering = state
        h, *steering = self.controller(torch.cat([x, out[..., self.hidden :]], -1), tuple(steering))
        key, strength, gate, shift, power, erase, add = self.steer(h).split(self.parts, -1)
        content = by_content(memory, key.unflatten(-1, (2, self.width)).tanh(), F.softplus(strength))
        weights = located(
            weights,
            content,
            gate.sigmoid(),
            shift.unflatten(-1, (2, len(SHIFTS))).softmax(-1),
            1 + F.softplus(power),
        )  # […, 2, R]
        reading, writing = weights[..., :1, :], weights[..., 1:, :]
        memory = erased(memory, writing, erase.sigmoid()[..., None, :])
        memory = added(memory, writing, add.tanh()[..., None, :])
        out = torch.cat([h, read(memory, reading).flatten(-2)], -1)
        return out, memory, weights, h, *steering
