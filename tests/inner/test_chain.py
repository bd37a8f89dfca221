"""Clipping and weight decay equal torch's; a chain hands each rule's updates to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from quickstudy.errors import UserError
from quickstudy.inner import Rule, adam, chain, clip_by_norm, clip_by_value, momentum, sgd, weight_decay

pytestmark = pytest.mark.usefixtures("float64")

Clip = Callable[[list[Tensor]], Any]


@pytest.mark.parametrize(
    ("before", "clip"),
    [
        (clip_by_norm(1.0), lambda p: clip_grad_norm_(p, 1.0)),
        (clip_by_norm(100.0), lambda p: clip_grad_norm_(p, 100.0)),
        (clip_by_value(0.3), lambda p: clip_grad_value_(p, 0.3)),
        (None, lambda p: None),
    ],
    ids=["norm", "norm, rarely reached", "value", "none"],
)
@pytest.mark.parametrize(
    ("rule", "optimizer"),
    [
        (sgd(0.3), lambda p: torch.optim.SGD(p, 0.3, weight_decay=0.2)),
        (momentum(0.1), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.2)),
        (adam(0.02), lambda p: torch.optim.Adam(p, 0.02, weight_decay=0.2)),
    ],
    ids=["sgd", "momentum", "adam"],
)
def test_ten_steps_equal_torchs(before: Rule | None, clip: Clip, rule: Rule, optimizer: Any) -> None:
    start = {"w": torch.randn(4, 3), "b": torch.randn(3)}
    theirs = {k: torch.nn.Parameter(v.clone()) for k, v in start.items()}
    opt, params = optimizer(list(theirs.values())), start
    chained = chain(*[before] if before else [], weight_decay(0.2), rule)
    state = chained.init(params)
    for step in range(10):
        # Along the course: the gradients of a quartic, small at first and then large.
        grads = {k: step**2 * p**3 for k, p in params.items()}
        updates, state = chained.update(grads, state, params)
        params = {k: p + updates[k] for k, p in params.items()}
        for p in theirs.values():
            p.grad = step**2 * p.data**3
        clip(list(theirs.values()))
        opt.step()
        for k in start:
            torch.testing.assert_close(params[k], theirs[k].data, rtol=1e-12, atol=1e-12)


def test_a_chain_is_its_rules_one_after_the_other() -> None:
    """Order counts: a step that is clipped is not a step along a clipped gradient."""
    params, grads = {"w": torch.zeros(2)}, {"w": torch.tensor([3.0, 4.0])}

    def step(*rules: Rule) -> list[float]:
        rule = chain(*rules)
        return rule.update(grads, rule.init(params), params)[0]["w"].tolist()

    assert step(clip_by_norm(1.0), sgd(0.5)) == pytest.approx([-0.3, -0.4], abs=1e-6)
    assert step(sgd(0.5), clip_by_norm(1.0)) == pytest.approx([-0.6, -0.8], abs=1e-6)
    assert step() == [3.0, 4.0]


def test_a_threshold_above_zero_is_asked_for() -> None:
    for make in (clip_by_norm, clip_by_value):
        with pytest.raises(UserError, match="clipped at a number above 0, not 0"):
            make(0)
