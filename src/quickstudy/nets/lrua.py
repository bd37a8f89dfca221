"""A memory with least-recently-used access: Santoro et al. 2016, arXiv 1605.06065, section 3.2.

A head writes a to rows of little use and to those it last read, and reads rows that are like its key k:

    wʷ = σ(α) wʳₜ₋₁ + (1 − σ(α)) wˡᵘₜ₋₁,   M(i) = Mₜ₋₁(i) + wʷ(i) a,   r = Σᵢ wʳ(i) M(i),

where wʳ are weights by content. Usage fades, and wˡᵘ marks the n least used rows, which are emptied before
they are written to, one for each of n heads:

    wᵘ = γ wᵘₜ₋₁ + wʳ + wʷ.

In the paper k itself is written, and the controller has to keep what it was shown before until its label is
told. Here what is written is its own vector, as in a neural Turing machine, and the controller is shown its
last input again: so some ten thousand streams teach it to bind the two. As many rows are emptied as are
written, not one. And content has a strength β that begins high enough to tell rows apart; the controller
gives α anew at each step: both are left open there.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.nets.lstm import LSTMCell
from quickstudy.nets.memory import added, by_content, read
from quickstudy.nets.ntm import EMPTY, State

FADING = 0.95
"""γ, how much of a row's usage remains a step later."""

STRONG = 4.0
"""The bias of strengths at first, which so are 1 + softplus(4), about 5."""


def least_used(usage: Tensor, heads: int) -> Tensor:
    """One of the least used rows for each head: usage `[…, R]` → `[…, H, R]`, a single 1 in each.

    >>> least_used(torch.tensor([0.3, 0.0, 0.9, 0.1]), 2)
    tensor([[0., 1., 0., 0.],
            [0., 0., 0., 1.]])
    """
    rows = usage.topk(heads, dim=-1, largest=False).indices
    return F.one_hot(rows, usage.shape[-1]).to(usage.dtype)


class LRUACell(nn.Module):
    """One step of an LSTM controller with a memory that is written where it has been least used.

    A state begins with what the step gives out: the controller's output and what was read, `[…, H + n W]`.

    Args:
        inputs: D.
        hidden: H, units of the controller.
        rows: R, of the memory.
        width: W, of a row.
        heads: n, each of which reads and writes.

    >>> cell, x = LRUACell(3, hidden=10, rows=8, width=4, heads=2), torch.randn(5, 3)
    >>> cell(x, cell.start(x))[0].shape
    torch.Size([5, 18])
    """

    def __init__(self, inputs: int, *, hidden: int, rows: int, width: int, heads: int) -> None:
        super().__init__()
        self.hidden, self.rows, self.width, self.heads = hidden, rows, width, heads
        self.outputs = hidden + heads * width
        self.from_input = nn.Linear(inputs, 8 * hidden)  # to the controller's gates now, and a step later
        self.controller = LSTMCell(heads * width, hidden)
        self.parts = [width, width, 1, 1]  # of each head k, a, β and α
        self.steer = nn.Linear(hidden, heads * sum(self.parts))
        with torch.no_grad():
            self.steer.bias.view(heads, -1)[:, 2 * width] = STRONG

    def start(self, x: Tensor) -> State:
        """The state before the first of inputs like `x` `[…, D]`: an empty memory, none of it used."""
        around, rows = x.shape[:-1], self.rows
        h, c = self.controller.start(x)
        memory = x.new_full((*around, rows, self.width), EMPTY)
        reading = x.new_zeros(*around, self.heads, rows)
        usage = EMPTY * torch.arange(
            rows, dtype=x.dtype, device=x.device
        )  # in this order, for want of another
        out, before = x.new_zeros(*around, self.outputs), x.new_zeros(*around, 4 * self.hidden)
        return out, h, c, memory, reading, usage.expand(*around, rows), before

    def seen(self, x: Tensor) -> Tensor:
        """What inputs `[…, D]` say to the controller's gates, now and a step later, `[…, 8 H]`."""
        return self.from_input(x)

    def forward(self, x: Tensor, state: State) -> State:
        return self.step(self.seen(x), state)

    def step(self, seen: Tensor, state: State) -> State:
        """The rest of a step."""
        out, h, c, memory, reading, usage, before = state
        now, later = seen.chunk(2, -1)
        told = self.controller.seen(out[..., self.hidden :]) + now + before
        h, c = self.controller.step(told, (h, c))
        key, add, strength, gate = self.steer(h).unflatten(-1, (self.heads, -1)).split(self.parts, -1)
        unused = least_used(usage, self.heads)  # […, n, R]
        writing = gate.sigmoid() * reading + (1 - gate.sigmoid()) * unused
        emptied = memory * (1 - unused.sum(-2))[..., None]
        memory = added(emptied, writing, add.tanh())
        reading = by_content(memory, key.tanh(), 1 + F.softplus(strength[..., 0]))  # […, n, R]
        usage = FADING * usage + (reading + writing).sum(-2)
        out = torch.cat([h, read(memory, reading).flatten(-2)], -1)
        return out, h, c, memory, reading, usage, later
