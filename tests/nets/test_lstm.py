from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from quickstudy.errors import UserError
from quickstudy.nets.lstm import LSTMCell, State
from quickstudy.nets.scan import scan

pytestmark = pytest.mark.usefixtures("float64")


def read(cell: LSTMCell, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
    return scan(cell, x, cell.start(x[0]) if state is None else state)


def twin(cell: LSTMCell, inputs: int) -> nn.LSTM:
    """torch's LSTM with the same weights."""
    theirs = nn.LSTM(inputs, cell.hidden)
    weights = {
        "weight_ih_l0": cell.from_input.weight,
        "weight_hh_l0": cell.from_output.weight,
        "bias_ih_l0": cell.from_input.bias,
        "bias_hh_l0": torch.zeros(4 * cell.hidden),
    }
    theirs.load_state_dict({k: v.detach() for k, v in weights.items()})
    return theirs


def test_reads_as_torch_does() -> None:
    cell, x = LSTMCell(3, 5), torch.randn(6, 2, 3)
    outputs, (h, c) = read(cell, x)
    wanted, (h_wanted, c_wanted) = twin(cell, 3)(x)
    torch.testing.assert_close(outputs, wanted)
    torch.testing.assert_close(h, h_wanted[0])
    torch.testing.assert_close(c, c_wanted[0])


def test_going_on_is_reading_at_once() -> None:
    cell, x = LSTMCell(3, 5), torch.randn(6, 2, 3)
    first, state = read(cell, x[:4])
    second, _ = read(cell, x[4:], state)
    torch.testing.assert_close(torch.cat([first, second]), read(cell, x)[0])


def test_single_steps_are_reading() -> None:
    cell, x = LSTMCell(3, 5), torch.randn(4, 3)
    state = cell.start(x[0])
    for t, row in enumerate(x):
        state = cell(row, state)
        torch.testing.assert_close(state[0], read(cell, x)[0][t])


def test_vectorises_over_tasks_without_a_fallback() -> None:
    cell, x = LSTMCell(3, 5), torch.randn(7, 6, 2, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mapped = torch.func.vmap(lambda x: read(cell, x)[0])(x)
    torch.testing.assert_close(mapped, torch.stack([read(cell, x)[0] for x in x]))


def test_can_be_differentiated_twice() -> None:
    cell, x = LSTMCell(2, 3), torch.randn(3, 2, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: read(cell, x)[0], x)
    assert torch.autograd.gradgradcheck(lambda x: read(cell, x)[0], x)


def test_forget_gates_begin_open() -> None:
    assert (LSTMCell(2, 3).from_input.bias[3:6] == 1).all()


@pytest.mark.parametrize("sizes", [(0, 3), (3, 0)])
def test_sizes_of_none_are_refused(sizes: tuple[int, int]) -> None:
    with pytest.raises(UserError, match="at least 1 input and 1 unit"):
        LSTMCell(*sizes)
