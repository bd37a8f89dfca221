from __future__ import annotations

import numpy as np
import pytest
import torch

from quickstudy.nets.memory import added, by_content, erased, read

pytestmark = pytest.mark.usefixtures("float64")


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def test_content_is_the_softmax_of_strength_times_cosine() -> None:
    memory, key, strength = torch.randn(7, 4), torch.randn(2, 4), torch.tensor([0.3, 9.0])
    found = by_content(memory, key, strength).numpy()
    for h in range(2):
        odds = [np.exp(strength[h].item() * cosine(key[h].numpy(), row)) for row in memory.numpy()]
        np.testing.assert_allclose(found[h], np.array(odds) / sum(odds), rtol=1e-5)


def test_an_empty_row_is_like_nothing_and_has_a_gradient() -> None:
    memory = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    weights = by_content(memory, torch.tensor([[2.0, 0.0]]), torch.ones(1))
    odds = np.exp([0.0, 1.0, -1.0])
    np.testing.assert_allclose(weights.detach().numpy()[0], odds / odds.sum(), rtol=1e-5)
    (gradient,) = torch.autograd.grad(weights[0, 1], memory)
    assert torch.isfinite(gradient).all()


def test_read_erase_and_add_by_loops() -> None:
    memory, weights = torch.randn(5, 3), torch.rand(2, 5)
    erase, add = torch.rand(2, 3), torch.randn(2, 3)
    wanted, reads = memory.numpy().copy(), np.zeros((2, 3))
    for h in range(2):
        for i in range(5):
            reads[h] += weights[h, i].item() * memory[i].numpy()
            wanted[i] *= 1 - weights[h, i].item() * erase[h].numpy()
    np.testing.assert_allclose(read(memory, weights).numpy(), reads, rtol=1e-12)
    np.testing.assert_allclose(erased(memory, weights, erase).numpy(), wanted, rtol=1e-12)
    for h in range(2):
        for i in range(5):
            wanted[i] += weights[h, i].item() * add[h].numpy()
    found = added(erased(memory, weights, erase), weights, add)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-12)


def test_leading_dimensions_are_memories_of_their_own() -> None:
    memory, weights, key = torch.randn(3, 5, 4), torch.rand(3, 2, 5), torch.rand(3, 2, 4)
    for function, rest in (
        (by_content, (key, torch.rand(3, 2))),
        (erased, (weights, key)),
        (added, (weights, key)),
    ):
        together = function(memory, *rest)
        apart = [function(memory[b], *(v[b] for v in rest)) for b in range(3)]
        torch.testing.assert_close(together, torch.stack(apart))


def test_gradients_by_finite_differences() -> None:
    memory, key, strength = torch.randn(4, 3), torch.randn(2, 3), torch.rand(2)
    for v in (memory, key, strength):
        v.requires_grad_()
    assert torch.autograd.gradcheck(by_content, (memory, key, strength))
    weights = torch.rand(2, 4, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *v: added(erased(*v), weights, key), (memory, weights, key))
