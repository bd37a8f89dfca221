from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor

from quickstudy.errors import UserError
from quickstudy.inner.below import inside_map
from quickstudy.inner.gradient import Params, gradient

pytestmark = pytest.mark.usefixtures("float64")


def cubic(p: Params) -> Tensor:
    """a³ · b + b²: derivatives 3a²b and a³ + 2b; `unused` has none."""
    return (p["a"] ** 3 * p["b"] + p["b"] ** 2).sum()


def start() -> Params:
    return {k: torch.randn(3, requires_grad=True) for k in ("a", "b", "unused")}


@pytest.mark.parametrize("create_graph", [False, True])
def test_value_and_gradient(create_graph: bool) -> None:
    p = start()
    value, grads = gradient(cubic, p, create_graph)
    a, b = p["a"], p["b"]
    torch.testing.assert_close(value, cubic(p), check_layout=False)
    torch.testing.assert_close(grads["a"], 3 * a**2 * b)
    torch.testing.assert_close(grads["b"], a**3 + 2 * b)
    assert torch.equal(grads["unused"], torch.zeros(3))
    assert list(grads) == list(p)
    assert grads["a"].requires_grad == value.requires_grad == create_graph


def test_the_gradient_can_be_differentiated() -> None:
    p = start()
    _, grads = gradient(cubic, p, create_graph=True)
    (second,) = torch.autograd.grad(grads["a"].sum(), p["a"])
    torch.testing.assert_close(second, 6 * p["a"] * p["b"])


def test_it_works_where_gradients_are_off_and_for_plain_tensors() -> None:
    p = {k: v.detach() for k, v in start().items()}
    with torch.no_grad():
        _, grads = gradient(cubic, p, create_graph=False)
    torch.testing.assert_close(grads["a"], 3 * p["a"] ** 2 * p["b"])
    assert not any(t.requires_grad for t in (*p.values(), *grads.values()))


@pytest.mark.parametrize("mapped", [False, True])
def test_only_the_direct_influence_counts(mapped: bool) -> None:
    """b is computed from a, as a head from prototypes: dL/da at fixed b."""
    a = torch.randn(3, requires_grad=True)

    def run(a: Tensor) -> Tensor:
        return gradient(cubic, {"a": a, "b": 2 * a}, create_graph=True)[1]["a"]

    grad = torch.func.vmap(run)(a[None])[0] if mapped else run(a)
    torch.testing.assert_close(grad, 3 * a**2 * (2 * a))
    (second,) = torch.autograd.grad(grad.sum(), a)
    torch.testing.assert_close(second, 18 * a**2)  # the total derivative of 6a³


@pytest.mark.parametrize("create_graph", [False, True])
def test_inside_a_map_it_is_the_same(create_graph: bool) -> None:
    p = {k: v.detach().expand(4, 3) + torch.randn(4, 3) for k, v in start().items()}
    p = {k: v.requires_grad_() for k, v in p.items()}

    def run(p: Params) -> tuple[Tensor, Params]:
        assert inside_map()
        return gradient(cubic, p, create_graph)

    values, grads = torch.func.vmap(run)(p)
    assert not inside_map()
    for t in range(4):
        value, reference = gradient(cubic, {k: v[t] for k, v in p.items()}, create_graph)
        torch.testing.assert_close(values[t], value)
        for k in p:
            torch.testing.assert_close(grads[k][t], reference[k])
    assert grads["a"].requires_grad == create_graph


def test_first_order_inside_a_map_keeps_no_graph() -> None:
    p = {k: v.detach().expand(4, 3).clone().requires_grad_() for k, v in start().items()}
    values, _ = torch.func.vmap(lambda q: gradient(cubic, q, create_graph=False))(p)
    assert values.grad_fn is None


@pytest.mark.parametrize("mapped", [False, True])
def test_a_loss_that_is_not_one_number_is_refused(mapped: bool) -> None:
    def run(a: Tensor) -> Tensor:
        return gradient(lambda p: p["a"] ** 2, {"a": a}, create_graph=True)[1]["a"]

    with pytest.raises(UserError, match=r"a support loss is one number, not a tensor of shape \(3,\)"):
        torch.func.vmap(run)(torch.ones(2, 3)) if mapped else run(torch.ones(3))


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_loss_of_something_else_is_refused(create_graph: bool) -> None:
    """The commonest mistake: the net is called with its own weights."""
    net = torch.nn.Linear(2, 1)
    for loss in (lambda p: net(torch.ones(2)).sum(), lambda p: torch.zeros(())):
        with pytest.raises(UserError, match="not computed from the parameters it is given"):
            gradient(loss, {"w": torch.ones(2)}, create_graph)


def test_a_loss_that_is_no_tensor_is_refused() -> None:
    with pytest.raises(UserError, match=r"a support loss is a tensor of one number, not 2\.0"):
        gradient(lambda p: cast(Any, 2.0), {"a": torch.ones(3)}, create_graph=True)
