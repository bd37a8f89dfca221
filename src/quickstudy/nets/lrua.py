"""A memory with least-recently-used access: Santoro et al. 2016, arXiv 1605.06065, section 3.2.

A head reads rows that are like its key k, and writes k to the row it last read or to one of little use:

    r = Σᵢ wʳ(i) Mₜ₋₁(i),   M(i) = Mₜ₋₁(i) + wʷ(i) k,   wʷ = σ(α) wʳₜ₋₁ + (1 − σ(α)) wˡᵘₜ₋₁,

where wʳ are weights by content. Usage fades, and wˡᵘ marks the n least used rows, which are emptied before
they are written to, one for each of n heads:

    wᵘ = γ wᵘₜ₋₁ + wʳ + wʷ.

The paper reads after it writes and empties one row; here a head reads first, else it finds its own key, and
as many rows are emptied as are written. Two things the paper leaves open: content has a strength β, as in a
neural Turing machine, that begins high enough to tell rows apart; and the controller gives α anew at each
step.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.nets.lstm import LSTMCell
from quickstudy.nets.memory import added, by_content, erased, read
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
        self.controller = LSTMCell(inputs + heads * width, hidden)
        self.steer = nn.Linear(hidden, heads * (width + 2))  # of each head a key, β and α
        with torch.no_grad():
            self.steer.bias.view(heads, -1)[:, width] = STRONG

    def start(self, x: Tensor) -> State:
        """The state before the first of inputs like `x` `[…, D]`: an empty memory, none of it used."""
        around, rows = x.shape[:-1], self.rows
        h, c = self.controller.start(x)
        memory = x.new_full((*around, rows, self.width), EMPTY)
        reading = x.new_zeros(*around, self.heads, rows)
        usage = EMPTY * torch.arange(
            rows, dtype=x.dtype, device=x.device
        )  # in this order, for want of another
        return x.new_zeros(*around, self.outputs), h, c, memory, reading, usage.expand(*around, rows)

    def forward(self, x: Tensor, state: State) -> State:
        out, h, c, memory, reading, usage = state
        h, c = self.controller(torch.cat([x, out[..., self.hidden :]], -1), (h, c))
        key, strength, gate = self.steer(h).unflatten(-1, (self.heads, -1)).split([self.width, 1, 1], -1)
        key, gate, last = key.tanh(), gate.sigmoid(), reading
        reading = by_content(memory, key, 1 + F.softplus(strength[..., 0]))  # […, n, R]
        found = read(memory, reading)
        unused = least_used(usage, self.heads)  # […, n, R]
        writing = gate * last + (1 - gate) * unused
        memory = added(erased(memory, unused, torch.ones_like(key)), writing, key)
        usage = FADING * usage + (reading + writing).sum(-2)
        out = torch.cat([h, found.flatten(-2)], -1)
        return out, h, c, memory, reading, usage
