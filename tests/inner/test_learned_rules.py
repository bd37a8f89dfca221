"""What an update rule is made of carries a meta-gradient: by finite differences, unrolled and flat."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from quickstudy.inner import (
    InnerProblem,
    Method,
    Rule,
    adam,
    by_step,
    chain,
    clip_by_norm,
    clip_by_value,
    cosine,
    flat,
    linear,
    momentum,
    sgd,
    unrolled,
    weight_decay,
)
from quickstudy.inner.rules import Params

pytestmark = pytest.mark.usefixtures("float64")

STEPS = 4
Make = Callable[[Tensor], Rule]
# Each is made of eight positive numbers that are learned.
RULES: dict[str, Make] = {
    "one rate": lambda r: sgd(r[0]),
    "a rate for each parameter": lambda r: sgd({"a.w": r[0], "b.w": r[1]}),
    "a rate for each element": lambda r: sgd({"a": r[:3], "b": r[3:5]}),
    "a rate for each layer and step": lambda r: sgd(by_step({"a": r[:4], "b": r[4:]})),
    "a rate for each step": lambda r: adam(by_step(r)),
    "linear": lambda r: sgd(linear(r[0], r[1], 3)),
    "cosine": lambda r: momentum(cosine(r[0], r[1], 3), 0.7),
    "momentum": lambda r: momentum(r[0], r[1]),
    "nesterov": lambda r: momentum(r[0], r[1], nesterov=True),
    "adam": lambda r: adam(r[0], eps=1e-3),
    "clipped by norm": lambda r: chain(clip_by_norm(2 * r[0]), sgd(r[1])),
    "clipped by value": lambda r: chain(clip_by_value(r[0]), momentum(r[1])),
    "weight decay": lambda r: chain(weight_decay({"a": r[0], "b": r[1:3]}), sgd(r[3])),
}
METHODS: list[Method] = [unrolled, partial(flat, keep=0), partial(flat, keep=2)]


def after(make: Make, method: Method, a: Tensor, b: Tensor, learned: Tensor) -> tuple[Tensor, Tensor]:
    """The end of four steps down a coupled quartic."""

    def loss(p: Params, step: int) -> Tensor:
        return (p["a.w"] ** 4).sum() / 4 + (p["a.w"].sum() - 2 * p["b.w"]).square().sum()

    end = method(InnerProblem({"a.w": a, "b.w": b}, loss, make(learned), STEPS)).params
    return end["a.w"], end["b.w"]


@pytest.mark.parametrize("method", METHODS, ids=["unrolled", "flat", "flat, two graphs kept"])
@pytest.mark.parametrize("rule", RULES)
def test_meta_gradients_of_start_and_rule(rule: str, method: Method) -> None:
    a, b = torch.tensor([0.7, -1.2, 1.5]), torch.tensor([0.4, -0.9])
    learned = torch.tensor([0.04, 0.05, 0.03, 0.06, 0.045, 0.035, 0.055, 0.025])
    inputs = [v.requires_grad_() for v in (a, b, learned)]
    assert torch.autograd.gradcheck(partial(after, RULES[rule], method), inputs, rtol=1e-6)
    end = torch.stack([v.sum() for v in after(RULES[rule], method, *inputs)]).sum()
    assert all(g.norm() > 1e-4 for g in torch.autograd.grad(end, inputs))


@pytest.mark.parametrize("method", METHODS, ids=["unrolled", "flat", "flat, two graphs kept"])
@pytest.mark.parametrize("rule", RULES)
def test_no_nan_where_gradients_are_zero(rule: str, method: Method) -> None:
    """At a minimum nothing moves, but for what decays; and the meta-gradient is a number."""
    a, b = torch.zeros(3, requires_grad=True), torch.zeros(2, requires_grad=True)
    learned = torch.full((8,), 0.05, requires_grad=True)
    end = after(RULES[rule], method, a, b, learned)
    assert all((v == 0).all() for v in end)
    grads = torch.autograd.grad(torch.cat(end).sum(), (a, b, learned))
    assert all(torch.isfinite(g).all() for g in grads)
    assert (grads[2] == 0).all()


@pytest.mark.parametrize("method", [unrolled, partial(flat, keep=0)])
def test_a_gradient_of_zero_is_not_shortened(method: Method) -> None:
    """Where the gradient is 0 at the start, clipping by norm is the identity, and so is its derivative."""
    a, b = torch.zeros(3, requires_grad=True), torch.zeros(2, requires_grad=True)
    clipped, plain = (
        torch.autograd.grad(torch.cat(after(make, method, a, b, torch.tensor([0.1]))).sum(), (a, b))
        for make in (lambda r: chain(clip_by_norm(0.5), sgd(r[0])), lambda r: sgd(r[0]))
    )
    for ours, theirs in zip(clipped, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
