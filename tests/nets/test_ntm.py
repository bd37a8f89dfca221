from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from quickstudy.nets.ntm import NTMCell, located, sharpened, shifted

pytestmark = pytest.mark.usefixtures("float64")


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def softplus(x: np.ndarray) -> np.ndarray:
    return np.log1p(np.exp(x))


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum()


def addressed(
    before: np.ndarray,
    memory: np.ndarray,
    key: np.ndarray,
    strength: float,
    gate: float,
    shift: np.ndarray,
    power: float,
) -> np.ndarray:
    """Section 3.3 of the paper, row by row."""
    rows = len(memory)
    alike = [key @ row / np.sqrt((key @ key + 1e-6) * (row @ row + 1e-6)) for row in memory]
    content = softmax(strength * np.array(alike))
    mixed = [gate * content[i] + (1 - gate) * before[i] for i in range(rows)]
    moved = np.zeros(rows)
    for i in range(rows):
        for j in range(rows):  # the distribution is 0 but for steps of -1, 0 and 1, around
            step = (i - j + 1) % rows
            moved[i] += mixed[j] * (shift[step] if step < 3 else 0.0)
    sharp = moved**power
    return sharp / sharp.sum()


def test_addressing_by_loops() -> None:
    before, memory = torch.rand(9).softmax(0), torch.randn(9, 4)
    key, shift = torch.randn(4), torch.randn(3).softmax(0)
    content = (2.5 * torch.cosine_similarity(key[None], memory)).softmax(0)
    found = located(before, content, torch.tensor(0.3), shift, torch.tensor(1.7))
    wanted = addressed(before.numpy(), memory.numpy(), key.numpy(), 2.5, 0.3, shift.numpy(), 1.7)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-6)


def test_a_sure_shift_moves_around_the_end() -> None:
    last = torch.tensor([0.0, 0.0, 1.0])
    assert shifted(last, torch.tensor([0.0, 0.0, 1.0])).tolist() == [1, 0, 0]
    assert shifted(last, torch.tensor([1.0, 0.0, 0.0])).tolist() == [0, 1, 0]
    assert sharpened(last, torch.tensor(3.0)).allclose(last)


def test_three_steps_by_hand() -> None:
    """The whole cell from its weights, in numpy: the controller aside, which has a test of its own."""
    cell, x = NTMCell(3, hidden=5, rows=6, width=4), torch.randn(3, 3)
    with torch.no_grad():
        for p in cell.parameters():
            p.normal_()
        state = cell.start(x[0])
        _, memory, weights, h, c = (v.numpy().copy() for v in state)
        assert weights.tolist() == [[1, 0, 0, 0, 0, 0]] * 2
        read = np.zeros(4)
        for t in range(3):
            state = cell(x[t], state)
            inputs = torch.cat([x[t], torch.from_numpy(read)])
            h, c = (v.numpy() for v in cell.controller(inputs, (torch.from_numpy(h), torch.from_numpy(c))))
            v = cell.steer.weight.numpy() @ h + cell.steer.bias.numpy()
            keys, v = np.tanh(v[:8]).reshape(2, 4), v[8:]
            strength, gate, shift, power, erase, add = np.split(v, np.cumsum([2, 2, 6, 2, 4]))
            weights = np.stack(
                [
                    addressed(
                        weights[i],
                        memory,
                        keys[i],
                        softplus(strength[i]),
                        sigmoid(gate[i]),
                        softmax(shift[3 * i : 3 * i + 3]),
                        1 + softplus(power[i]),
                    )
                    for i in range(2)
                ]
            )
            for i in range(6):
                memory[i] = memory[i] * (1 - weights[1, i] * sigmoid(erase)) + weights[1, i] * np.tanh(add)
            read = weights[0] @ memory
            np.testing.assert_allclose(state[0].numpy(), np.concatenate([h, read]), rtol=1e-8, atol=1e-10)
            np.testing.assert_allclose(state[1].numpy(), memory, rtol=1e-8, atol=1e-10)


def test_streams_side_by_side_do_not_meet() -> None:
    cell, x = NTMCell(3, hidden=5, rows=6, width=4), torch.randn(4, 2, 3)

    def run(inputs: Tensor) -> Tensor:
        state = cell.start(inputs[0])
        for step in inputs:
            state = cell(step, state)
        return state[0]

    together = run(x)
    for b in range(2):
        torch.testing.assert_close(together[b], run(x[:, b]))
    torch.testing.assert_close(torch.func.vmap(run, in_dims=1)(x), together)
