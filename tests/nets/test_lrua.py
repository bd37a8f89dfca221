from __future__ import annotations

import numpy as np
import pytest
import torch

from quickstudy.nets.lrua import FADING, LRUACell, least_used

pytestmark = pytest.mark.usefixtures("float64")


def test_least_used_rows_are_those_of_the_smallest_usage() -> None:
    usage = torch.rand(3, 9)
    found = least_used(usage, 4)
    assert found.shape == (3, 4, 9)
    for b in range(3):
        rows = found[b].argmax(-1).tolist()
        assert rows == np.argsort(usage[b].numpy())[:4].tolist()
        assert found[b].sum().item() == 4


def test_steps_by_hand() -> None:
    """The memory's part in numpy, by the paper's formulas, head by head and row by row."""
    rows, width, heads, hidden = 6, 3, 2, 5
    cell, x = LRUACell(4, hidden=hidden, rows=rows, width=width, heads=heads), torch.randn(5, 4)
    with torch.no_grad():
        for p in cell.parameters():
            p.normal_()
        state = cell.start(x[0])
        memory, usage = state[3].numpy().copy(), state[5].numpy().copy()
        reading, read = np.zeros((heads, rows)), np.zeros((heads, width))
        h = c = torch.zeros(hidden)
        for t in range(5):
            state = cell(x[t], state)
            w, b, now = cell.from_input.weight, cell.from_input.bias, 4 * hidden
            told = w[:now] @ x[t] + b[:now] + (w[now:] @ x[t - 1] + b[now:] if t else 0)
            h, c = cell.controller.step(
                told + cell.controller.from_input(torch.from_numpy(read.ravel())), (h, c)
            )
            steer = cell.steer(h).numpy().reshape(heads, 2 * width + 2)
            key, add = np.tanh(steer[:, :width]), np.tanh(steer[:, width : 2 * width])
            strength, gate = 1 + np.log1p(np.exp(steer[:, -2])), 1 / (1 + np.exp(-steer[:, -1]))
            unused = np.argsort(usage)[:heads]
            writing = np.stack([gate[i] * reading[i] for i in range(heads)])
            for i in range(heads):
                writing[i, unused[i]] += 1 - gate[i]
            memory[unused] = 0
            for i in range(heads):
                for row in range(rows):
                    memory[row] += writing[i, row] * add[i]
            for i in range(heads):
                lengths = np.sqrt((key[i] @ key[i] + 1e-6) * ((memory**2).sum(1) + 1e-6))
                odds = np.exp(strength[i] * (memory @ key[i]) / lengths)
                reading[i] = odds / odds.sum()
                read[i] = reading[i] @ memory
            usage = FADING * usage + reading.sum(0) + writing.sum(0)
            np.testing.assert_allclose(state[3].numpy(), memory, rtol=1e-8, atol=1e-10)
            np.testing.assert_allclose(state[5].numpy(), usage, rtol=1e-8)
            np.testing.assert_allclose(state[0].numpy(), np.concatenate([h.numpy(), read.ravel()]), rtol=1e-8)


def test_rows_are_filled_one_after_the_other() -> None:
    """What is written stays until every other row was used: here by heads that write to unused rows alone."""
    cell, x = LRUACell(2, hidden=4, rows=8, width=3, heads=2), torch.randn(4, 2)
    with torch.no_grad():
        cell.steer.bias[-1] = cell.steer.bias[7] = -40.0  # the gates: never where was read
        state = cell.start(x[0])
        for t in range(4):
            before = state[3]
            state = cell(x[t], state)
            changed = ((state[3] - before).abs() > 1e-9).any(-1).nonzero()[:, 0].tolist()
            assert changed == [2 * t, 2 * t + 1]
