from __future__ import annotations

import torch
from torch import Tensor

from quickstudy.nets import scan


def test_running_sums() -> None:
    """A cell that adds gives out the cumulative sums; the rest of its state is handed on."""

    def add(x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return state[0] + x, state[1] + 1

    inputs, zero = torch.randn(6, 2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    outputs, (total, count) = scan(add, inputs, (zero, zero))
    torch.testing.assert_close(outputs, inputs.cumsum(0))
    torch.testing.assert_close(total, inputs.sum(0))
    assert count.tolist() == [6, 6]
    first, state = scan(add, inputs[:4], (zero, zero))
    second, _ = scan(add, inputs[4:], state)
    torch.testing.assert_close(torch.cat([first, second]), outputs)
