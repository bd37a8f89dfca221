"""Optimisers that adapt their rate, beside the same loop written out with NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quickstudy.outer.hypergradient import Hypergradient, HypergradientAdam, HypergradientSGD
from quickstudy.outer.optimizers import make_optimizer, make_schedule

SLOPES = np.array([1.0, 10.0, 0.1])


def bowl(x: np.ndarray) -> np.ndarray:
    """The gradient of ½ Σ slope · x²."""
    return SLOPES * x


def by_hand(adam: bool, lr: float, hyper_lr: float, steps: int) -> tuple[np.ndarray, float]:
    """Where the loop ends, and its last rate."""
    x, m, v, d, rate = np.array([1.0, -2.0, 3.0]), np.zeros(3), np.zeros(3), None, lr
    for t in range(1, steps + 1):
        g = bowl(x)
        if d is not None:
            rate *= np.exp(hyper_lr * g @ d / np.linalg.norm(g) / np.linalg.norm(d))
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        d = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8) if adam else g
        x = x - rate * d
    return x, rate


def run(optimizer: Hypergradient, steps: int) -> None:
    (a, b) = optimizer.param_groups[0]["params"]
    for _ in range(steps):
        g = torch.from_numpy(bowl(np.append(a.detach().numpy(), b.detach().numpy())))
        a.grad, b.grad = g[:2], g[2:]
        optimizer.step()


def parameters() -> list[torch.Tensor]:
    """One vector in two parameters: the angle is that of both together."""
    start = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    return [start[:2].clone().requires_grad_(), start[2:].clone().requires_grad_()]


@pytest.mark.parametrize("kind", [HypergradientSGD, HypergradientAdam])
@pytest.mark.parametrize("lr", [1e-3, 0.15])
def test_by_hand(kind: type[Hypergradient], lr: float) -> None:
    params = parameters()
    optimizer = kind(params, lr=lr, hyper_lr=0.2)
    run(optimizer, 12)
    x, rate = by_hand(kind is HypergradientAdam, lr, 0.2, 12)
    np.testing.assert_allclose(torch.cat(params).detach().numpy(), x, rtol=1e-10)
    assert lr * optimizer.param_groups[0]["factor"] == pytest.approx(rate, rel=1e-10)
    assert rate > 2 * lr if lr == 1e-3 else rate != lr


@pytest.mark.parametrize(
    ("kind", "plain"), [(HypergradientSGD, torch.optim.SGD), (HypergradientAdam, torch.optim.Adam)]
)
def test_without_its_own_rate_it_is_torchs(
    kind: type[Hypergradient], plain: type[torch.optim.Optimizer]
) -> None:
    ours, theirs = parameters(), parameters()
    run(kind(ours, lr=0.05, hyper_lr=0.0), 10)
    run(plain(theirs, lr=0.05), 10)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_schedule_sets_the_rate_and_leaves_the_factor() -> None:
    params = parameters()
    optimizer = make_optimizer("sgd-hd", params, 0.001)
    schedule = make_schedule("linear", optimizer, 10)
    factors = []
    for _ in range(5):
        run(optimizer, 1)
        schedule.step()
        factors.append(optimizer.param_groups[0]["factor"])
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0005)
    assert factors == sorted(factors)
    assert factors[-1] > 1.3


def test_without_gradients_nothing_moves() -> None:
    params = parameters()
    optimizer = HypergradientAdam(params, lr=0.1)
    optimizer.step()
    for p in params:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    optimizer.step()
    assert optimizer.param_groups[0]["factor"] == 1.0
    assert torch.equal(torch.cat(params), torch.cat(parameters()))
