from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from quickstudy.errors import UserError
from quickstudy.inner import (
    InnerProblem,
    Method,
    Rule,
    chain,
    clip_by_norm,
    conjugate_gradient,
    cosine,
    flat,
    implicit,
    linear,
    momentum,
    neumann,
    scheduled,
    sgd,
    solve,
    trajectory,
    truncated,
    unrolled,
)
from quickstudy.inner.rules import Params

pytestmark = pytest.mark.usefixtures("float64")


def quadratic(a: Tensor) -> tuple[Tensor, Params]:
    """½ wᵀAw with a symmetric A: S steps of rate α multiply w by (I − αA)ˢ."""
    return a @ a.T, {"w": torch.randn(len(a), requires_grad=True)}


def test_what_is_no_rule_is_refused() -> None:
    with pytest.raises(UserError, match=r"a rule is what sgd\(…\) or adam\(…\) make.*, not <class .*SGD'>"):
        InnerProblem({}, lambda p, step: torch.zeros(()), cast(Any, torch.optim.SGD), 1)


def test_fewer_steps_than_none_are_refused() -> None:
    with pytest.raises(UserError, match="steps must be at least 0 and finite, not -1"):
        InnerProblem({"w": torch.ones(1)}, lambda p, step: torch.zeros(()), sgd(0.1), -1)


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_a_quadratic_in_closed_form(steps: int) -> None:
    a, start = quadratic(torch.randn(4, 4) * 0.5)
    problem = InnerProblem(start, lambda p, step: 0.5 * p["w"] @ a @ p["w"], sgd(0.1), steps)
    shrink = torch.linalg.matrix_power(torch.eye(4) - 0.1 * a, steps)
    end = solve(problem)
    torch.testing.assert_close(end.params["w"], shrink @ start["w"])
    direction = torch.randn(4)
    (meta,) = torch.autograd.grad(end.params["w"] @ direction, start["w"])
    torch.testing.assert_close(meta, shrink @ direction)  # second order: through every step

    first = solve(problem, "first-order")
    torch.testing.assert_close(first.params["w"], shrink @ start["w"])
    (meta,) = torch.autograd.grad(first.params["w"] @ direction, start["w"])
    torch.testing.assert_close(meta, direction)  # first order: as if no step depended on the start


@pytest.mark.parametrize("k", [0, 1, 3, 5, 9])
def test_truncated_is_exact_in_the_last_steps_only(k: int) -> None:
    """Of a quadratic the last k steps alone multiply the meta-gradient by (I − αA)."""
    a, start = quadratic(torch.randn(4, 4) * 0.5)
    problem = InnerProblem(start, lambda p, step: 0.5 * p["w"] @ a @ p["w"], sgd(0.1), 5)
    end, direction = solve(problem, truncated(k)).params["w"], torch.randn(4)
    torch.testing.assert_close(end, solve(problem).params["w"])
    (meta,) = torch.autograd.grad(end @ direction, start["w"])
    shrink = torch.linalg.matrix_power(torch.eye(4) - 0.1 * a, min(k, 5))
    torch.testing.assert_close(meta, shrink @ direction)


def test_an_unknown_method_is_told_the_known_ones() -> None:
    problem = InnerProblem({"w": torch.ones(1)}, lambda p, step: p["w"].sum(), sgd(0.1), 1)
    with pytest.raises(UserError, match="unknown method 'flatt': did you mean 'flat'"):
        solve(problem, "flatt")


def test_the_course_of_the_loss() -> None:
    start = torch.randn(3)
    problem = InnerProblem({"w": start}, lambda p, step: 0.5 * p["w"].square().sum(), sgd(0.5), 4)
    end = solve(problem)
    wanted = 0.5 * start.square().sum() * 0.25 ** torch.arange(4)
    torch.testing.assert_close(torch.stack(end.losses), wanted)
    assert not any(loss.requires_grad for loss in end.losses)


def test_the_loss_is_told_the_step() -> None:
    start, seen = {"w": torch.ones(1, requires_grad=True)}, []

    def loss(p: Params, step: int) -> Tensor:
        seen.append(step)
        return p["w"].sum() * (step + 1)

    assert solve(InnerProblem(start, loss, sgd(0.1), 3)).params["w"].item() == pytest.approx(1 - 0.1 * 6)
    assert seen == [0, 1, 2]


def outer(loss: object, first_order: bool, start: Params, other: Tensor) -> tuple[Tensor, Tensor]:
    """The meta-gradients of a curved outer loss with respect to the start and something else."""
    end = solve(InnerProblem(start, loss, sgd(0.3), 4), "first-order" if first_order else "unrolled")
    value = (end.params["w"] ** 4).sum() + (end.params["w"] * other).sum()
    g = torch.autograd.grad(value, [start["w"], other])
    return g[0], g[1]


def test_first_order_is_exact_where_the_inner_hessian_vanishes() -> None:
    c, other = torch.randn(5), torch.randn(5, requires_grad=True)
    start = {"w": torch.randn(5, requires_grad=True)}

    def linear(p: Params, step: int) -> Tensor:
        return p["w"] @ c

    for a, b in zip(outer(linear, False, start, other), outer(linear, True, start, other), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-14, atol=1e-14)

    def curved(p: Params, step: int) -> Tensor:
        return p["w"] @ c + 0.5 * p["w"].square().sum()

    second, first = outer(curved, False, start, other)[0], outer(curved, True, start, other)[0]
    torch.testing.assert_close(second, 0.7**4 * first)  # each step multiplies by I − 0.3 H, and H = I
    assert (second - first).norm() > 0.5 * first.norm()


def test_without_gradients_no_graph_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = torch.autograd.grad

    def spy(*args: object, create_graph: bool = False, **options: object) -> object:
        asked.append(create_graph)
        return real(*args, create_graph=create_graph, **options)

    monkeypatch.setattr(torch.autograd, "grad", spy)
    start = {"w": torch.ones(3, requires_grad=True)}
    problem = InnerProblem(start, lambda p, step: p["w"].pow(4).sum(), sgd(0.1), 3)
    with torch.no_grad():
        end = solve(problem)
    assert asked == [False] * 3
    assert end.params["w"].grad_fn is None
    torch.testing.assert_close(end.params["w"], solve(problem).params["w"].detach())
    assert asked[3:] == [True] * 3


@pytest.mark.parametrize("exact", [None, 0, 2])
def test_a_trajectory_is_what_fewer_steps_end_at(exact: int | None) -> None:
    """Parameters, losses and meta-gradients after each step; a rule's state is carried through."""
    w = torch.tensor([1.0, -2.0], requires_grad=True)

    def problem(steps: int) -> InnerProblem:
        return InnerProblem({"w": w}, lambda p, s: ((s + 1) * p["w"] ** 4).sum(), momentum(0.01), steps)

    for i, (loss, params) in enumerate(trajectory(problem(4), exact=exact), 1):
        # Of a shorter loop the last steps are others: exact counts from the end of the whole one.
        end = unrolled(problem(i), exact=None if exact is None else max(0, exact - (4 - i)))
        assert torch.equal(params["w"], end.params["w"])
        assert torch.equal(loss, end.losses[-1])
        found, wanted = (
            torch.autograd.grad(p["w"].sum(), w, retain_graph=True) for p in (params, end.params)
        )
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def no_state(params: Params) -> tuple[()]:
    return ()


def test_methods_and_their_parts_refuse_what_cannot_be() -> None:
    """Those that make a method are told apart from one, too."""
    problem = InnerProblem({"w": torch.ones(())}, lambda p, step: p["w"] ** 2, sgd(0.1), steps=3)
    for method, said in (
        (truncated, r"truncated makes a method: give truncated\(k\)"),
        (implicit, r"implicit makes a method: give implicit\(strength\)"),
        (partial(flat, keep=-2), "keep must be at least 0 and finite, not -2"),
        (partial(flat, keep=1.5), "keep must be a whole number, not 1.5"),
        (partial(flat, budget="1GB"), "budget must be a whole number, not '1GB'"),
    ):
        with pytest.raises(UserError, match=said):
            solve(problem, method)
    for make, said in (
        (lambda: neumann(-1), "iterations must be at least 0 and finite, not -1"),
        (lambda: neumann(3, 0.0), "rate must be above 0, not 0.0"),
        (lambda: neumann(cast(Any, "a")), "iterations must be a whole number, not 'a'"),
        (lambda: conjugate_gradient(cast(Any, 1.5)), "iterations must be a whole number, not 1.5"),
        (lambda: implicit(cast(Any, "a")), "strength must be a number, not 'a'"),
        (lambda: chain(cast(Any, sgd)), r"a rule is what sgd\(…\) or adam\(…\) make"),
        (lambda: scheduled(sgd, cast(Any, 0.1)), "scheduled takes a rule's function and a schedule"),
        (lambda: sgd(cast(Any, [0.1])), r"lr must be a number of at least 0, not \[0.1\]"),
        (lambda: sgd({"w": -1.0}), r"lr\['w'\] must be a number of at least 0, not -1.0"),
        (lambda: truncated(True), "k must be a whole number, not True"),
        (lambda: truncated(cast(Any, "2")), "k must be a whole number, not '2'"),
        (lambda: clip_by_norm(cast(Any, "a")), "clipped at a number above 0, not 'a'"),
        (lambda: linear(cast(Any, "a"), 0.0, 3), "first must be a number of at least 0, not 'a'"),
        (lambda: cosine(0.1, 0.0, -3), "steps must be at least 0 and finite, not -3"),
        (lambda: InnerProblem({}, lambda p, step: torch.zeros(()), sgd(0.1), 1), "needs parameters to move"),
        (lambda: replace(problem, params=cast(Any, [torch.ones(1)])), "tensors by name, not"),
        (lambda: replace(problem, params={"n": torch.ones(1, dtype=torch.int)}), "n is of torch.int32"),
        (lambda: replace(problem, params=cast(Any, {"w": 1.0})), "w is a float"),
        (lambda: solve(problem, cast(Any, sgd)), "but <function sgd.* made a Rule"),
        (lambda: solve(replace(problem, rule=Rule(no_state, cast(Any, lambda g, s, p: p)))), "update makes"),
        (lambda: solve(replace(problem, rule=Rule(no_state, lambda g, s, p: ({}, s)))), "update makes"),
        (lambda: solve(problem, cast(Any, 3)), "unknown method '3'"),
    ):
        with pytest.raises(UserError, match=said):
            make()


def test_a_parameter_stays_what_it_is() -> None:
    """A rate of another shape would make another parameter of it; one of another precision does not."""
    problem = InnerProblem({"w": torch.ones(1)}, lambda p, step: p["w"].square().sum(), sgd(0.1), steps=2)
    with pytest.raises(UserError, match=r"moves w, of shape \(1,\), to one of \(3,\)"):
        solve(replace(problem, rule=sgd(torch.full((3,), 0.1))))
    small = replace(problem, params={"w": torch.ones(1, dtype=torch.float32)})
    end = solve(replace(small, rule=sgd(torch.full((1,), 0.1, dtype=torch.float64)))).params["w"]
    assert end.dtype == torch.float32
    assert end.item() == pytest.approx(0.64)


@pytest.mark.parametrize("method", ["unrolled", implicit(2.0)])
def test_losses_are_those_of_the_support_set(method: Method) -> None:
    """½ w² from 4: what holds the parameters to the start is no part of them."""
    start, strength = 4.0, 0.0 if method == "unrolled" else 2.0
    problem = InnerProblem({"w": torch.tensor(start)}, lambda p, step: 0.5 * p["w"] ** 2, sgd(0.1), steps=4)
    w, wanted = start, []
    for _ in range(4):
        wanted.append(0.5 * w**2)
        w -= 0.1 * (w + strength * (w - start))
    found = solve(problem, method)
    assert [loss.item() for loss in found.losses] == pytest.approx(wanted)
    assert found.params["w"].item() == pytest.approx(w)
