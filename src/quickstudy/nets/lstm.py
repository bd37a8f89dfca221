"""Long short-term memory: Hochreiter, Schmidhuber 1997; with forget gates, Gers, Schmidhuber, Cummins 2000.

With input, forget and output gates i, f, o and a candidate g, each from the input x and the last output h,

    c' = σ(f) ⊙ c + σ(i) ⊙ tanh(g),   h' = σ(o) ⊙ tanh(c').

In plain operations, which any map over tasks can vectorise and which can be differentiated twice; torch's own
layer allows neither.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quickstudy.errors import UserError

State = tuple[Tensor, Tensor]
"""Output h and memory c, both `[…, H]`."""


class LSTMCell(nn.Module):
    """One step of an LSTM: inputs `[…, D]` and a state → the next state.

    Forget gates begin open, with a bias of 1 (Jozefowicz, Zaremba, Sutskever 2015), so that a memory lasts.

    Args:
        inputs: D.
        hidden: H, units.

    Raises:
        UserError: no input or no unit.

    >>> cell, x = LSTMCell(3, 4), torch.randn(2, 3)
    >>> h, c = cell(x, cell.start(x))
    >>> h.shape, c.shape
    (torch.Size([2, 4]), torch.Size([2, 4]))
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        if min(inputs, hidden) < 1:
            raise UserError(f"an LSTM needs at least 1 input and 1 unit, not {(inputs, hidden)}")
        self.hidden = hidden
        self.from_input = nn.Linear(inputs, 4 * hidden)  # gates in torch's order: i, f, g, o
        self.from_output = nn.Linear(hidden, 4 * hidden, bias=False)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-(hidden**-0.5), hidden**-0.5)
            self.from_input.bias[hidden : 2 * hidden] = 1.0

    def start(self, x: Tensor) -> State:
        """The state before the first of inputs like `x` `[…, D]`: zeros."""
        zeros = x.new_zeros(*x.shape[:-1], self.hidden)
        return zeros, zeros

    def seen(self, x: Tensor) -> Tensor:
        """What inputs `[…, D]` say to the gates `[…, 4 H]`, which needs no state."""
        return self.from_input(x)

    def forward(self, x: Tensor, state: State) -> State:
        return self.step(self.seen(x), state)

    def step(self, seen: Tensor, state: State) -> State:
        """The rest of a step."""
        h, c = state
        i, f, g, o = (seen + self.from_output(h)).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c
