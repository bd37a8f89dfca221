from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from quickstudy.errors import UserError
from quickstudy.inner import InnerProblem, Rule, adam, momentum, sgd, unrolled, weight_decay
from quickstudy.inner.rules import Params

pytestmark = pytest.mark.usefixtures("float64")

Parameters = list[torch.nn.Parameter]


def descend(rule: Rule, params: Params, grads: list[Params]) -> Params:
    state = rule.init(params)
    for g in grads:
        updates, state = rule.update(g, state, params)
        params = {k: p + updates[k] for k, p in params.items()}
    return params


@pytest.mark.parametrize(
    ("rule", "optimizer"),
    [
        (sgd(0.3), lambda p: torch.optim.SGD(p, 0.3)),
        (momentum(0.1, 0.8), lambda p: torch.optim.SGD(p, 0.1, momentum=0.8)),
        (
            momentum(0.1, 0.8, nesterov=True),
            lambda p: torch.optim.SGD(p, 0.1, momentum=0.8, nesterov=True),
        ),
        (adam(0.02), lambda p: torch.optim.Adam(p, 0.02)),
        (adam(0.02, b1=0.0), lambda p: torch.optim.Adam(p, 0.02, betas=(0.0, 0.999))),
        (adam(0.02, 0.7, 0.9, 1e-3), lambda p: torch.optim.Adam(p, 0.02, betas=(0.7, 0.9), eps=1e-3)),
    ],
    ids=["sgd", "momentum", "nesterov", "adam", "adam without momentum", "adam, other constants"],
)
def test_ten_steps_equal_torchs(rule: Rule, optimizer: Callable[[Parameters], Any]) -> None:
    start = {"w": torch.randn(4, 3), "b": torch.randn(3)}
    theirs = {k: torch.nn.Parameter(v.clone()) for k, v in start.items()}
    opt = optimizer(list(theirs.values()))
    grads = [{k: torch.randn_like(v) * (v > 0) for k, v in start.items()} for _ in range(10)]
    for g in grads:
        for k, p in theirs.items():
            p.grad = g[k].clone()
        opt.step()
    ours = descend(rule, start, grads)
    for k in start:
        torch.testing.assert_close(ours[k], theirs[k].data, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("make", [sgd, momentum, adam])
def test_a_rate_for_each_name(make: Callable[[Any], Rule]) -> None:
    start = {"w": torch.randn(4), "b": torch.randn(4)}
    grads = [{k: torch.randn(4) for k in start} for _ in range(3)]
    ours = descend(make({"w": 0.1, "b": torch.tensor([0.0, 1.0, 2.0, 3.0])}), start, grads)
    torch.testing.assert_close(ours["w"], descend(make(0.1), start, grads)["w"])
    for i, rate in enumerate((0.0, 1.0, 2.0, 3.0)):
        torch.testing.assert_close(ours["b"][i], descend(make(rate), start, grads)["b"][i])


def test_a_rate_for_each_layer() -> None:
    """A name's own rate, else that of the nearest layer it is in, else the one for the rest."""
    names = ["body.0.weight", "body.0.bias", "body.1.weight", "bodywork", "head"]
    rates = {"body": 0.2, "body.0": 0.3, "body.0.bias": 0.4, "": 0.5}
    updates, _ = sgd(rates).update({k: torch.ones(1) for k in names}, (), {})
    assert [-updates[k].item() for k in names] == [0.3, 0.4, 0.2, 0.5, 0.5]
    with pytest.raises(UserError, match=r"there is no rate for 'head.bias': name it or the layer it is in"):
        sgd({"body": 0.1}).update({"head.bias": torch.ones(1)}, (), {})


@pytest.mark.parametrize("make", [sgd, momentum, adam])
def test_a_rule_changes_none_of_its_arguments(make: Callable[[Any], Rule]) -> None:
    params, grads = {"w": torch.randn(4)}, {"w": torch.randn(4)}
    copies = {"w": params["w"].clone()}, {"w": grads["w"].clone()}
    rule = make(0.1)
    state = rule.init(params)
    first, _ = rule.update(grads, state, params)
    again, _ = rule.update(grads, state, params)
    assert torch.equal(first["w"], again["w"])
    assert torch.equal(params["w"], copies[0]["w"])
    assert torch.equal(grads["w"], copies[1]["w"])


@pytest.mark.parametrize("make", [lambda lr: sgd(lr), lambda lr: momentum(lr), lambda lr: adam(lr)])
def test_meta_gradients_of_start_and_rate(make: Callable[[Tensor], Rule]) -> None:
    """By gradcheck's finite differences: through three steps on a quartic."""

    def after(w: Tensor, lr: Tensor) -> Tensor:
        rule = make(lr)
        params = {"w": w}
        state = rule.init(params)
        for _ in range(3):
            updates, state = rule.update({"w": params["w"] ** 3}, state, params)
            params = {"w": params["w"] + updates["w"]}
        return params["w"]

    w = torch.tensor([0.7, -1.2, 1.5], requires_grad=True)
    assert torch.autograd.gradcheck(after, (w, torch.tensor(0.1, requires_grad=True)))


def test_adam_stays_where_its_gradient_has_been_zero() -> None:
    """The bottom of a bowl, in as many steps as one likes: where it ends moves as where it began."""
    w = torch.zeros(1, dtype=torch.float32, requires_grad=True)
    bowl = InnerProblem({"w": w}, lambda params, step: params["w"].square().sum(), adam(0.1), steps=50)
    end = unrolled(bowl).params["w"]
    assert end.item() == 0
    assert torch.autograd.grad(end.sum(), w)[0].item() == 1


def test_adam_has_no_meta_gradient_where_a_gradient_is_zero() -> None:
    """As from a dead ReLU: the step there is 0, and so is its derivative."""
    g = torch.tensor([0.0, 0.0, 2.0], requires_grad=True)
    rule, params = adam(0.1), {"w": torch.zeros(3)}
    state, total = rule.init(params), torch.zeros(3)
    for _ in range(4):
        updates, state = rule.update({"w": g * torch.tensor([0.0, 1.0, 1.0])}, state, params)
        total = total + updates["w"]
    (meta,) = torch.autograd.grad(total.sum(), g)
    assert torch.isfinite(total).all()
    assert meta[:2].abs().max() == 0
    assert torch.isfinite(meta).all()
    assert total[:2].abs().max() == 0


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: sgd(-1), "lr must be a number of at least 0, not -1"),
        (lambda: adam("x"), "lr must be a number of at least 0, not 'x'"),
        (lambda: adam(0.1, b1=1.5), "b1 must be a number of at least 0 and below 1, not 1.5"),
        (lambda: momentum(0.1, decay=2), "decay must be a number of at least 0 and below 1, not 2"),
        (lambda: momentum(float("nan")), "lr must be a number of at least 0, not nan"),
        (lambda: weight_decay(-1), "strength must be a number of at least 0, not -1"),
    ],
)
def test_numbers_that_no_rule_can_have_are_refused(make: Callable[[], Rule], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make()


def test_a_learned_rate_may_be_below_zero() -> None:
    """As Meta-SGD's, which may turn the direction."""
    grads = {"w": torch.ones(1)}
    assert sgd(torch.tensor(-0.5)).update(grads, (), grads)[0]["w"].item() == 0.5
