"""Optimiser states without pickle, and schedules by value."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from quickstudy.errors import UserError
from quickstudy.outer.optimizers import (
    SCHEDULES,
    load_state,
    make_optimizer,
    make_schedule,
    state_tensors,
)

MAKERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "adam": lambda p: make_optimizer("adam", p, 0.1),
    "adamw": lambda p: make_optimizer("adamw", p, 0.1),
    "sgd": lambda p: make_optimizer("sgd", p, 0.1),
    "adam-hd": lambda p: make_optimizer("adam-hd", p, 0.1),
    "sgd-hd": lambda p: make_optimizer("sgd-hd", p, 0.1),
    "momentum": lambda p: make_optimizer(lambda q: torch.optim.SGD(q, lr=0.1, momentum=0.9), p, 0.1),
    "amsgrad": lambda p: make_optimizer(lambda q: torch.optim.Adam(q, lr=0.1, amsgrad=True), p, 0.1),
    "rmsprop": lambda p: make_optimizer(lambda q: torch.optim.RMSprop(q, lr=0.1, centered=True), p, 0.1),
}


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(s, generator=generator)) for s in ((3, 2), (2,), ())]


def steps(params: list[nn.Parameter], optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for i in range(first, last):
        generator = torch.Generator().manual_seed(i)
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()


@pytest.mark.parametrize("name", MAKERS)
def test_the_state_goes_through_tensors_and_json(name: str) -> None:
    unbroken = parameters()
    steps(unbroken, MAKERS[name](unbroken), 0, 12)

    params = parameters()
    before = MAKERS[name](params)
    steps(params, before, 0, 7)
    tensors, rest = state_tensors(before)
    tensors = {k: v.clone() for k, v in tensors.items()}
    rest = json.loads(json.dumps(rest))
    after = MAKERS[name](params)
    load_state(after, tensors, rest)
    steps(params, after, 7, 12)
    assert all(torch.equal(a, b) for a, b in zip(params, unbroken, strict=True))


def test_without_its_state_adam_goes_elsewhere() -> None:
    """The test above can fail."""
    unbroken, params = parameters(), parameters()
    steps(unbroken, MAKERS["adam"](unbroken), 0, 12)
    steps(params, MAKERS["adam"](params), 0, 7)
    steps(params, MAKERS["adam"](params), 7, 12)
    assert not torch.equal(params[0], unbroken[0])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("constant", [1] * 11),
        ("linear", [1 - i / 10 for i in range(11)]),
        ("cosine", [(1 + math.cos(math.pi * i / 10)) / 2 for i in range(11)]),
        ("halving", [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125, 0.0625, 0.0625, 0.0625]),
    ],
)
def test_schedules_by_value(name: str, expected: list[float]) -> None:
    optimizer = make_optimizer("sgd", parameters(), 0.4)
    plan = make_schedule(name, optimizer, 10)
    rates = []
    for _ in range(11):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        plan.step()
    assert rates == pytest.approx([0.4 * e for e in expected], abs=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_stay_at_their_end(name: str) -> None:
    assert SCHEDULES[name](1.5) == pytest.approx(SCHEDULES[name](1.0))
    assert SCHEDULES[name](0.0) == 1


def test_unknown_names_are_told() -> None:
    with pytest.raises(UserError, match="unknown optimizer 'adma': did you mean 'adam'"):
        make_optimizer("adma", parameters(), 0.1)
    with pytest.raises(UserError, match="unknown schedule 'cosin': did you mean 'cosine'"):
        make_schedule("cosin", make_optimizer("sgd", parameters(), 0.1), 10)


def test_what_needs_more_than_the_gradient_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="LBFGS asks for the loss several times"):
        make_optimizer(lambda q: torch.optim.LBFGS(q), parameters(), 0.1)
    with pytest.raises(UserError, match="ReduceLROnPlateau follows a loss"):
        make_schedule(ReduceLROnPlateau, make_optimizer("sgd", parameters(), 0.1), 10)


def test_a_rate_that_is_a_tensor_is_refused() -> None:
    with pytest.raises(UserError, match="rate is a number here, not a tensor"):
        make_optimizer(lambda p: torch.optim.Adam(p, lr=torch.tensor(0.1)), [torch.zeros(1)], 0.1)
