"""The implicit meta-gradient: closed forms, and the unrolled loop once it has come to the minimum."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import UserError
from quickstudy.inner import InnerProblem, Method, estimate, sgd, solve, unrolled
from quickstudy.inner.implicit import Solver, conjugate_gradient, implicit, neumann
from quickstudy.inner.rules import Params
from quickstudy.learners import MAML
from quickstudy.nets import mlp
from quickstudy.tasks import ClassTasks

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("solver", [conjugate_gradient(5), neumann(400, 0.2)])
def test_a_quadratic_in_closed_form(solver: Solver) -> None:
    """½ wᵀAw − bᵀw: w* = (A + λI)⁻¹ (λ w₀ + b), so ∂w*/∂w₀ = λ (A + λI)⁻¹ and ∂w*/∂b = (A + λI)⁻¹."""
    a = torch.randn(5, 5)
    a, b = a @ a.T / 5, torch.randn(5, requires_grad=True)
    w, direction, strength = torch.randn(5, requires_grad=True), torch.randn(5), 0.7
    problem = InnerProblem({"w": w}, lambda p, s: 0.5 * p["w"] @ a @ p["w"] - b @ p["w"], sgd(0.2), 500)
    end = solve(problem, implicit(strength, solver)).params["w"]
    inverse = torch.linalg.inv(a + strength * torch.eye(5))
    torch.testing.assert_close(end, inverse @ (strength * w + b), rtol=1e-8, atol=1e-8)
    for found, wanted in zip(
        torch.autograd.grad(end @ direction, [w, b]),
        (strength * inverse @ direction, inverse @ direction),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("mapped", [False, True])
def test_at_the_minimum_it_is_the_unrolled_meta_gradient(mapped: bool) -> None:
    w, b = torch.randn(3, 2, requires_grad=True), torch.zeros(2, requires_grad=True)
    features, strength = torch.randn(5, 3, requires_grad=True), 0.5
    x, y = torch.randn(4, 6, 5), torch.randint(2, (4, 6))

    def outer(method: Callable[[Params], Method]) -> tuple[Tensor, ...]:
        def one(x: Tensor, y: Tensor) -> Tensor:
            z, start = torch.tanh(x @ features), {"w": w, "b": b}

            def loss(p: Params, step: int) -> Tensor:
                return F.cross_entropy(z @ p["w"] + p["b"], y)

            end = method(start)(InnerProblem(start, loss, sgd(0.5), 400)).params
            return (end["w"] ** 3).sum() + end["b"].sin().sum() + z.sum()

        value = torch.func.vmap(one)(x, y).mean() if mapped else one(x[0], y[0])
        return value, *torch.autograd.grad(value, [w, b, features])

    def exact(start: Params) -> Method:
        def method(problem: InnerProblem) -> object:
            def loss(p: Params, step: int) -> Tensor:
                away = sum((p[k] - start[k]).square().sum() for k in p)
                return problem.loss(p, step) + strength / 2 * away

            return unrolled(InnerProblem(problem.params, loss, problem.rule, problem.steps))

        return method

    ours, theirs = outer(lambda start: implicit(strength, conjugate_gradient(20))), outer(exact)
    for a, b_ in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b_, rtol=1e-7, atol=1e-8)
    assert theirs[3].norm() > 1e-3


def test_a_learner_by_both_strategies(blobs: ClassDataset) -> None:
    learner = MAML(mlp(256, (8,)), way=3, inner_lr=0.1, steps=20).double()
    learner.gradient = implicit(2.0)
    batch = ClassTasks(blobs, 3, 2, query=2).batch(np.arange(3)).to(torch.float64)
    (loop, ours), (vmap, theirs) = (estimate(learner, batch, s) for s in ("loop", "vmap"))
    torch.testing.assert_close(loop.loss, vmap.loss)
    for k in ours:
        torch.testing.assert_close(ours[k], theirs[k], rtol=1e-8, atol=1e-10)


def test_damping_is_for_the_way_back_alone() -> None:
    """Of ½ a w² the minimum stays λ w₀ / (a + λ), its derivative becomes (λ + δ) / (a + λ + δ)."""
    for a in (3.0, -2.0):  # here undamped H + λI is not definite
        w = torch.tensor([2.0], requires_grad=True)
        problem = InnerProblem({"w": w}, lambda p, s, a=a: a / 2 * p["w"].square().sum(), sgd(0.1), 3)
        plain, damped = (solve(problem, implicit(1.0, damping=d)).params["w"] for d in (0.0, 4.0))
        assert torch.equal(plain, damped)
        (found,) = torch.autograd.grad(damped, w)
        torch.testing.assert_close(found, torch.tensor([5 / (a + 5)]), rtol=1e-12, atol=1e-12)


def test_a_strength_holds() -> None:
    for strength in (0.0, -1.0, float("nan")):
        with pytest.raises(UserError, match="strength must be above 0"):
            implicit(strength)
    with pytest.raises(UserError, match="damping must be at least 0"):
        implicit(1.0, damping=-1.0)
    with pytest.raises(UserError, match=r"solver is conjugate_gradient\(…\).*not 'cg'"):
        implicit(1.0, solver=cast(Solver, "cg"))
    w = torch.ones(2, requires_grad=True)
    problem = InnerProblem({"w": w}, lambda p, s: p["w"].square().sum(), sgd(1e-4), 300)
    near, far = (solve(problem, implicit(strength)).params["w"] for strength in (1000.0, 0.01))
    assert (near - w).norm() < 0.1 * (far - w).norm()
