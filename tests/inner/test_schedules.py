"""Rules whose rate follows a schedule equal torch's optimisers under its schedulers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, MultiplicativeLR

from quickstudy.errors import UserError
from quickstudy.inner import Rule, adam, by_step, cosine, linear, momentum, sgd

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize(
    ("schedule", "scheduler"),
    [
        (linear(0.3, 0.03, 6), lambda opt: LinearLR(opt, 1.0, 0.1, 6)),
        (cosine(0.3, 0.02, 9), lambda opt: CosineAnnealingLR(opt, 9, 0.02)),
        (lambda step: 0.3 * 0.7**step, lambda opt: MultiplicativeLR(opt, lambda step: 0.7)),
        (
            by_step(0.3 * 0.7 ** torch.arange(12, dtype=torch.float64)),
            lambda opt: MultiplicativeLR(opt, lambda step: 0.7),
        ),
    ],
    ids=["linear", "cosine", "a function", "by step"],
)
@pytest.mark.parametrize(
    ("make", "optimizer"),
    [
        (sgd, lambda p: torch.optim.SGD(p, 0.3)),
        (
            lambda lr: momentum(lr, 0.8, nesterov=True),
            lambda p: torch.optim.SGD(p, 0.3, momentum=0.8, nesterov=True),
        ),
        (
            lambda lr: adam(lr, 0.7, 0.9, 1e-3),
            lambda p: torch.optim.Adam(p, 0.3, betas=(0.7, 0.9), eps=1e-3),
        ),
    ],
    ids=["sgd", "momentum", "adam"],
)
def test_ten_steps_equal_torchs(
    schedule: Any, scheduler: Callable[[Any], Any], make: Callable[[Any], Rule], optimizer: Any
) -> None:
    start = {"w": torch.randn(4, 3), "b": torch.randn(3)}
    theirs = {k: torch.nn.Parameter(v.clone()) for k, v in start.items()}
    opt = optimizer(list(theirs.values()))
    plan = scheduler(opt)
    rule, params = make(schedule), start
    state = rule.init(params)
    for _ in range(10):
        grads = {k: torch.randn_like(v) for k, v in start.items()}
        updates, state = rule.update(grads, state, params)
        params = {k: p + updates[k] for k, p in params.items()}
        for k, p in theirs.items():
            p.grad = grads[k].clone()
        opt.step()
        plan.step()
        for k in start:
            torch.testing.assert_close(params[k], theirs[k].data, rtol=1e-12, atol=1e-12)


def test_a_rate_for_each_layer_and_step() -> None:
    """As written out by hand; steps beyond the last rate take the last."""
    rates = {"body": torch.tensor([1.0, 2.0]), "body.1.bias": torch.tensor([[3.0, 4.0], [5.0, 6.0]])}
    rule = sgd(by_step(rates))
    grads = {"body.0.weight": torch.ones(1), "body.1.bias": torch.ones(2)}
    state, taken = rule.init(grads), []
    for _ in range(3):
        updates, state = rule.update(grads, state, grads)
        taken.append([-v for u in updates.values() for v in u.tolist()])
    assert taken == [[1.0, 3.0, 4.0], [2.0, 5.0, 6.0], [2.0, 5.0, 6.0]]


@pytest.mark.parametrize("rates", [torch.tensor(0.1), torch.ones(0), 0.1, {"w": torch.tensor(0.1)}])
def test_rates_by_step_are_some(rates: Any) -> None:
    with pytest.raises(UserError, match=r"by_step takes tensors \[S, …\] of a rate for each step, not"):
        by_step(rates)
