"""The implicit meta-gradient: only where the inner loop ended counts, not the way there.

Implicit MAML (Rajeswaran, Finn, Kakade, Levine 2019, arXiv 1909.04630): the inner loop descends

    L(θ) + λ/2 ‖θ − θ₀‖²,

and at its minimum θ* the implicit function theorem gives, with the Hessian H of L there and an outer gradient
v,

    q = (H + λI)⁻¹ v,    θ̄₀ = λ q,    φ̄ = −∂⟨∇L(θ*), q⟩/∂φ.

q is found by products with H alone, by conjugate gradients or by the Neumann series; memory does not grow
with the inner steps. Exact at the minimum only: away from it the error is of the size of the gradient left.
The rule has to rest there, as one with weight decay does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from quickstudy.errors import UserError
from quickstudy.inner.adjoint import Dims, attached
from quickstudy.inner.chain import chain
from quickstudy.inner.once import once_refused
from quickstudy.inner.problem import InnerProblem, Solution
from quickstudy.inner.rules import Params, Rule
from quickstudy.inner.twice import attention_by_math, twice_differentiable
from quickstudy.inner.unrolled import unrolled
from quickstudy.inner.watching import check_known, watched, with_stand_ins
from quickstudy.options import above_zero, at_least_zero

Vector = list[Tensor]
Product = Callable[[Vector], Vector]
Solver = Callable[[Product, Vector], Vector]


def implicit(
    strength: float = 1.0, solver: Solver | None = None, damping: float = 0.0
) -> Callable[[InnerProblem], Solution]:
    """A method whose meta-gradient is that of the minimum of the proximal objective.

    Args:
        strength: λ, how strongly the start holds the parameters.
        solver: how q is found: by default `conjugate_gradient(5)`; or `neumann(iterations, rate)`.
        damping: added to λ on the way back. Where the descent ended short of a minimum H + λI need not be
            definite, and without it neither solver means anything; much of it leads to first order.

    Raises:
        UserError: a strength that is not above 0, a damping below, a solver that is none.

    Example:
        >>> from quickstudy.inner.rules import sgd
        >>> start = {"w": torch.tensor([4.0], requires_grad=True)}
        >>> half = InnerProblem(start, lambda p, step: 0.5 * p["w"].square().sum(), sgd(0.4), steps=50)
        >>> torch.autograd.grad(implicit(1.0)(half).params["w"], start["w"])  # λ / (1 + λ)
        (tensor([0.5000]),)
    """
    if isinstance(strength, InnerProblem):
        raise UserError("implicit makes a method: give implicit(strength), such as implicit(1.0)")
    above_zero(strength=strength)
    at_least_zero(damping=damping)
    solver = solver or conjugate_gradient(5)
    if not callable(solver):
        raise UserError(
            f"solver is conjugate_gradient(…) or neumann(…), or a function such as they make, not {solver!r}"
        )
    return partial(_implicit, strength=strength, solver=solver, damping=damping)


def _implicit(problem: InnerProblem, *, strength: float, solver: Solver, damping: float) -> Solution:
    used: dict[int, Tensor] = {}
    seen = watched(problem, used)

    start = {k: p.detach() for k, p in problem.params.items()}

    def pulled(grads: Params, state: tuple[()], params: Params) -> tuple[Params, tuple[()]]:
        """The gradient of the proximal objective."""
        return {k: g + strength * (params[k] - start[k]) for k, g in grads.items()}, state

    with torch.no_grad():
        proximal = chain(Rule(lambda params: (), pulled), problem.rule)
        end = unrolled(replace(problem, loss=seen.loss, rule=proximal))
    if not torch.is_grad_enabled() or not problem.steps:
        return end
    minimum = list(end.params.values())
    back = partial(from_minimum, problem, used, strength + damping, solver)
    found = attached(back, [*problem.params.values(), *used.values()], minimum, minimum)
    return Solution(dict(zip(end.params, found, strict=True)), end.losses)


def from_minimum(
    problem: InnerProblem,
    used: dict[int, Tensor],
    strength: float,
    solver: Solver,
    inputs: Sequence[Tensor],
    minimum: Sequence[Tensor],
    wanted: Sequence[bool],
    adjoint: Sequence[Tensor],
    dims: tuple[Dims, Dims] | None,
) -> list[Tensor | None]:
    """The `WayBack` from a minimum to the start and to φ, which are its inputs."""
    n = len(minimum)
    check_seen(problem, used, inputs[n:], minimum, dims)

    def one(others: Vector, at: Vector, v: Vector) -> Vector:
        """λ q, and the adjoints of φ: zeros where it is no real number."""
        real = [i for i, x in enumerate(others) if x.is_floating_point()]

        def slope(values: Vector, reals: Vector) -> Vector:
            now = dict(zip(real, reals, strict=True))
            again = with_stand_ins(problem, used, [now.get(i, x) for i, x in enumerate(others)])
            with twice_differentiable(mapped=True):
                found = torch.func.grad(once_refused(lambda p: again.loss(p, problem.steps - 1)))(
                    dict(zip(problem.params, values, strict=True))
                )
            return list(found.values())

        pull: Any = torch.func.vjp(slope, at, [others[i] for i in real])[1]
        q = solver(lambda u: plus(pull(u)[0], strength, u), v)
        found = dict(zip(real, pull(q)[1], strict=True))
        return [strength * x for x in q] + [
            -found[i] if i in found else torch.zeros_like(x) for i, x in enumerate(others)
        ]

    given = list(inputs[n:]), list(minimum), list(adjoint)
    if dims is None:
        adjoints = one(*given)
    else:
        by_task = torch.func.vmap(one, (list(dims[0][n:]), list(dims[1]), 0), randomness="different")(*given)
        adjoints = [g.sum(0) if d is None else g for g, d in zip(by_task, dims[0], strict=True)]
    return [g if w else None for g, w in zip(adjoints, wanted, strict=True)]


def check_seen(
    problem: InnerProblem,
    used: dict[int, Tensor],
    others: Sequence[Tensor],
    minimum: Sequence[Tensor],
    dims: tuple[Dims, Dims] | None,
) -> None:
    """Refuse a loss that uses what was not noted, which `torch.func` would take for a constant."""
    at, beside = ([v.detach().requires_grad_(v.is_floating_point()) for v in vs] for vs in (minimum, others))

    def loss(at: Vector, beside: Vector) -> Tensor:
        again = with_stand_ins(problem, used, beside)
        return again.loss(dict(zip(problem.params, at, strict=True)), problem.steps - 1)

    with torch.enable_grad(), torch.random.fork_rng([]), attention_by_math():
        if dims:
            in_dims = list(dims[1]), list(dims[0][len(minimum) :])
            value = torch.func.vmap(loss, in_dims, randomness="different")(at, beside)
        else:
            value = loss(at, beside)
    check_known(value, [*at, *beside])


def dot(a: Vector, b: Vector) -> Tensor:
    """The inner product of two lists of tensors."""
    return torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum()


def plus(a: Vector, scale: Tensor | float, b: Vector) -> Vector:
    """a + scale · b."""
    return [x + scale * y for x, y in zip(a, b, strict=True)]


def conjugate_gradient(iterations: int = 5) -> Solver:
    """Solve A q = v for a positive definite A; exact after as many iterations as A has eigenvalues.

    Raises:
        UserError: fewer than no iterations.

    >>> a = torch.tensor([[2.0, 0.0], [0.0, 4.0]])
    >>> conjugate_gradient(2)(lambda q: [a @ q[0]], [torch.tensor([2.0, 4.0])])
    [tensor([1.0000, 1.0000])]
    """
    at_least_zero(whole=True, iterations=iterations)
    return partial(_conjugate_gradient, iterations=iterations)


def _conjugate_gradient(product: Product, v: Vector, *, iterations: int) -> Vector:
    q, rest, towards = [torch.zeros_like(x) for x in v], v, v
    size = dot(rest, rest)
    for _ in range(iterations):
        image = product(towards)
        tiny = torch.finfo(size.dtype).tiny  # no step where nothing is left
        length = size / (dot(towards, image) + tiny)
        q, rest = plus(q, length, towards), plus(rest, -length, image)
        size, before = dot(rest, rest), size
        towards = plus(rest, size / (before + tiny), towards)
    return q


def neumann(iterations: int = 10, rate: float = 0.1) -> Solver:
    """q = rate · Σⱼ (I − rate A)ʲ v, for a rate below 2 over A's largest eigenvalue.

    Raises:
        UserError: fewer than no iterations, or a rate that is not above 0.

    >>> a = torch.tensor([[2.0, 0.0], [0.0, 4.0]])
    >>> neumann(50, 0.25)(lambda q: [a @ q[0]], [torch.tensor([2.0, 4.0])])
    [tensor([1., 1.])]
    """
    at_least_zero(whole=True, iterations=iterations)
    above_zero(rate=rate)
    return partial(_neumann, iterations=iterations, rate=rate)


def _neumann(product: Product, v: Vector, *, iterations: int, rate: float) -> Vector:
    term = total = v
    for _ in range(iterations):
        term = plus(term, -rate, product(term))
        total = plus(total, 1.0, term)
    return [rate * x for x in total]
