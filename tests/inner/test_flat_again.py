"""Steps that flat memory makes again on the way back: the same ones, or refused."""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.errors import UserError
from quickstudy.inner import InnerProblem, Rule, estimate, flat, implicit, unrolled
from quickstudy.inner.flat import back, rows_like
from quickstudy.inner.memory import held_by_graphs
from quickstudy.inner.problem import take_step
from quickstudy.inner.rules import Params, sgd
from quickstudy.inner.solve import Method
from quickstudy.learners import MAML
from quickstudy.nets import conv4, native
from quickstudy.tasks import Query, Support, Task

pytestmark = pytest.mark.usefixtures("float64")
OTHERS: dict[str, Callable[[], Any]] = {
    "Python's": random.random,
    "numpy's": lambda: np.random.default_rng().random(),
    "its own": lambda: torch.rand((), generator=OWN),
}
OWN = torch.Generator()


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("draw", OTHERS)
def test_chance_that_is_not_torchs_is_refused(draw: str, mapped: bool) -> None:
    w, x = torch.ones(3, requires_grad=True), torch.rand(4, 3)

    def one(x: Tensor) -> Tensor:
        problem = InnerProblem(
            {"w": w}, lambda p, step: OTHERS[draw]() * (x * p["w"]).exp().sum(), sgd(0.1), 4
        )
        return flat(problem, keep=1).params["w"].sum()

    value = torch.func.vmap(one, randomness="different")(x).sum() if mapped else one(x[0])
    with pytest.raises(UserError, match=r"^an inner step came out otherwise \(.* %.* when it was made again"):
        torch.autograd.grad(value, w)


def hidden(change: Callable[[Tensor], Tensor]) -> Rule:
    """Descent by gradients that something else than its state changes."""
    return Rule(lambda params: (), lambda grads, s, p: ({k: -0.1 * change(g) for k, g in grads.items()}, s))


COUNT = itertools.count(1)
RULES: dict[str, Callable[[Tensor], Tensor]] = {
    "numpy's": lambda g: g * np.random.default_rng().random(),
    "a hidden count": lambda g: g / next(COUNT),
    "dropout by its own": lambda g: g * (torch.rand(g.shape[-1:], generator=OWN) < 0.5),
    "noise": lambda g: g + 1e-3 * random.random(),
}


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("rule", RULES)
def test_a_rule_of_chance_or_hidden_state_is_refused(rule: str, mapped: bool) -> None:
    """It changes where a step leads, and no loss of the step itself."""
    w, x = torch.ones(20, requires_grad=True), torch.rand(4, 20)

    def one(x: Tensor) -> Tensor:
        problem = InnerProblem({"w": w}, lambda p, step: (x * p["w"]).exp().sum(), hidden(RULES[rule]), 6)
        return flat(problem, keep=1).params["w"].sum()

    value = torch.func.vmap(one, randomness="different")(x).sum() if mapped else one(x[0])
    with pytest.raises(UserError, match="an inner step came out otherwise"):
        torch.autograd.grad(value, w)


def test_a_loss_of_the_same_value_and_another_slope_is_refused() -> None:
    w = torch.rand(5, requires_grad=True)

    def loss(p: Params, step: int) -> Tensor:
        more = p["w"].pow(3).sum() * random.random()
        return p["w"].exp().sum() + more - more.detach()

    end = flat(InnerProblem({"w": w}, loss, sgd(0.01), 6), keep=1).params["w"]
    with pytest.raises(UserError, match="an inner step came out otherwise"):
        torch.autograd.grad(end.sum(), w)


def test_five_graphs_of_a_small_net_fit_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the flat memory of `benchmarks/memory.py` rests on: a sixth would count as growth with steps."""
    if not native.build():
        pytest.skip("no C compiler")
    x, y = torch.rand(1, 25, 1, 28, 28, dtype=torch.float32), torch.arange(25).fmod(5)[None]
    learner = MAML(conv4(20), way=5, steps=9, gradient="flat").float().train()
    again: list[int] = []
    module = sys.modules[flat.__module__]
    monkeypatch.setattr(module, "back", lambda *given: (again.append(given[1]), back(*given))[1])
    estimate(learner, Task(Support(x, y, 5), Query(x, y)), "loop")
    assert again == [3, 2, 1, 0]


def test_it_can_be_differentiated_once() -> None:
    w = torch.rand(5, requires_grad=True)
    for method in (partial(flat, keep=1), implicit(1.0)):
        end = method(InnerProblem({"w": w}, lambda p, step: p["w"].pow(4).sum(), sgd(0.01), 6)).params["w"]
        with pytest.raises(UserError, match="can be differentiated once"):
            torch.autograd.grad(end.square().sum(), w, create_graph=True)


def test_what_is_no_number_stays_so() -> None:
    """A loss that left all bounds is no other one."""
    w = torch.full((2,), 1e3, requires_grad=True)
    end = flat(InnerProblem({"w": w}, lambda p, step: p["w"].pow(4).sum(), sgd(1.0), 8), keep=0)
    assert not end.losses[-1].isfinite()
    assert not torch.autograd.grad(end.params["w"].sum(), w)[0].isfinite().all()


@pytest.mark.parametrize("kept", [{"keep": 1}, {"budget": 0}])
def test_a_map_that_draws_the_same_for_all(kept: dict[str, int]) -> None:
    w, x = torch.randn(6, 2, requires_grad=True), torch.ones(3, 4, 6)

    def outer(method: Method) -> tuple[Tensor, ...]:
        torch.manual_seed(3)

        def one(x: Tensor) -> Tensor:
            def loss(p: Params, step: int) -> Tensor:
                return (F.dropout(x, 0.5) @ p["w"]).square().mean()

            return method(InnerProblem({"w": w}, loss, sgd(0.3), 4)).params["w"].pow(3).sum()

        values = torch.func.vmap(one, randomness="same")(x)
        assert torch.equal(values, values[0].expand(3))
        return values, *torch.autograd.grad(values.sum(), w)

    for a, b in zip(outer(partial(flat, **kept)), outer(unrolled), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("make", [lambda: partial(flat, keep=0), lambda: implicit(1.0)])
def test_autocast_may_end_before_the_way_back(make: Callable[[], Method]) -> None:
    """As torch recommends: the steps are made again in it, and outside of it where it began later."""
    w, x = torch.randn(6, 2, dtype=torch.float32, requires_grad=True), torch.randn(4, 6, dtype=torch.float32)

    def end() -> Tensor:
        problem = InnerProblem({"w": w}, lambda p, step: F.linear(x, p["w"].T).square().mean(), sgd(0.3), 4)
        return make()(problem).params["w"].pow(3).sum()

    with torch.autocast("cpu", torch.bfloat16):
        (inside,) = torch.autograd.grad(end(), w)
        value = end()
    assert torch.equal(torch.autograd.grad(value, w)[0], inside)
    (plain,) = torch.autograd.grad(end(), w)
    assert not torch.equal(plain, inside)
    value = end()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(torch.autograd.grad(value, w)[0], plain)


@pytest.mark.parametrize(("steps", "keep"), [(3, 2), (3, None), (4, 1), (6, 2), (6, 0)])
def test_a_tensor_kept_from_an_early_step_is_refused(steps: int, keep: int | None) -> None:
    w, first = torch.ones(2, requires_grad=True), []

    def keeps(p: Params, step: int) -> Tensor:
        if not step:
            first.append(p["w"] * 2)
        return (first[0] * p["w"] ** 2).sum()

    with pytest.raises(UserError, match="keeps tensors from step to step"):
        flat(InnerProblem({"w": w}, keeps, sgd(0.1), steps), keep=keep, budget=0)


@pytest.mark.parametrize("keep", [0, 2, None])
@pytest.mark.parametrize("mapped", [False, True])
def test_a_loss_may_hold_on_to_the_start(keep: int | None, mapped: bool) -> None:
    """As a proximal one does."""
    w, x = torch.randn(3, requires_grad=True), torch.rand(2, 3)

    def outer(method: Method) -> Tensor:
        def one(x: Tensor) -> Tensor:
            def loss(p: Params, step: int) -> Tensor:
                return (x * p["w"]).exp().sum() + (p["w"] - 2 * w).pow(4).sum()

            return method(InnerProblem({"w": w}, loss, sgd(0.02), 5)).params["w"].pow(3).sum()

        value = torch.func.vmap(one)(x).sum() if mapped else one(x[0])
        return torch.autograd.grad(value, w)[0]

    found = outer(partial(flat, keep=keep, budget=0))
    torch.testing.assert_close(found, outer(unrolled), rtol=1e-9, atol=1e-9)


def lazy(lr: float, growing: bool = False) -> Rule:
    """Momentum that begins with no velocity at all, as torch.optim's does."""

    def update(grads: Params, state: Any, params: Params) -> tuple[Params, Any]:
        velocity = {k: g if state["v"] is None else 0.9 * state["v"][k] + g for k, g in grads.items()}
        past = [*state["past"], *velocity.values()] if growing else []
        return {k: -lr * v for k, v in velocity.items()}, {"v": velocity, "past": past}

    return Rule(lambda params: {"v": None, "past": []}, update)


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("keep", [0, 1, 3])
def test_a_state_that_begins_with_nothing(keep: int, mapped: bool) -> None:
    w, x = torch.randn(3, requires_grad=True), torch.rand(2, 3)

    def outer(method: Method, growing: bool = False) -> Tensor:
        def one(x: Tensor) -> Tensor:
            problem = InnerProblem({"w": w}, lambda p, step: (x * p["w"]).exp().sum(), lazy(0.1, growing), 4)
            return method(problem).params["w"].pow(3).sum()

        value = torch.func.vmap(one)(x).sum() if mapped else one(x[0])
        return torch.autograd.grad(value, w)[0]

    found = outer(partial(flat, keep=keep))
    torch.testing.assert_close(found, outer(unrolled), rtol=1e-9, atol=1e-9)
    if keep < 2:
        with pytest.raises(UserError, match="whose state keeps its tensors and their shapes"):
            outer(partial(flat, keep=keep), growing=True)


def test_rows_lie_as_what_they_keep() -> None:
    for v in (
        torch.rand(4, 3, 5, 5).to(memory_format=torch.channels_last),
        torch.rand(3, 4).T,
        torch.rand(2, 1).expand(2, 3),
        torch.rand(()),
    ):
        rows = rows_like(v, 6)
        rows[2].copy_(v)
        assert rows.shape == (6, *v.shape)
        assert rows[2].equal(v)
        assert rows[2].stride() == torch.empty_like(v).stride()


def test_what_all_tasks_share_counts_for_none() -> None:
    """The budget is for graphs: the examples of a batch, of which a task is a part, are there anyway."""
    w, batch = torch.rand(50, requires_grad=True), torch.rand(100, 7, 50)
    taken: list[int] = []

    def loss(p: Params, step: int) -> Tensor:
        taken.append(step)
        return (batch[3] * p["w"]).tanh().square().sum()

    problem = InnerProblem({"w": w}, loss, sgd(0.01), 9)
    with held_by_graphs([w, batch]) as held:
        after = take_step(problem, {"w": w}, {}, 0, create_graph=True)
    size = held.most
    del after
    taken.clear()
    end = flat(problem, budget=int(4.5 * size)).params["w"]
    taken.clear()
    torch.autograd.grad(end.sum(), w)
    assert len(taken) == 5
