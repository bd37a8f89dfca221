from __future__ import annotations

from typing import Any

import pytest
import torch

from quickstudy.errors import UserError
from quickstudy.learners.similarity import cosines, similarity, squared_distances

pytestmark = pytest.mark.usefixtures("float64")


def test_squared_distances() -> None:
    a, b = torch.randn(6, 4), torch.randn(3, 4)
    torch.testing.assert_close(squared_distances(a, b), torch.cdist(a, b) ** 2, rtol=1e-12, atol=1e-12)


def test_distances_far_from_zero() -> None:
    a, b = (torch.randn(n, 32).float() + 1e4 for n in (6, 3))
    wanted = torch.cdist(a.double(), b.double()) ** 2
    torch.testing.assert_close(squared_distances(a, b).double(), wanted, rtol=1e-5, atol=0)


def test_the_centre_of_distances_carries_no_gradient() -> None:
    a, b = torch.randn(4, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    assert torch.autograd.gradcheck(squared_distances, (a, b))
    assert torch.autograd.gradgradcheck(squared_distances, (a, b))


def test_cosines() -> None:
    a, b = torch.randn(6, 4), torch.randn(3, 4)
    for i in range(6):
        for j in range(3):
            wanted = sum(a[i, d] * b[j, d] for d in range(4)) / (a[i].norm() * b[j].norm())
            torch.testing.assert_close(cosines(a, b)[i, j], wanted)


def test_a_feature_of_zeros_has_no_direction() -> None:
    zero = torch.zeros(1, 3, requires_grad=True)
    found = cosines(zero, torch.randn(2, 3))
    found.sum().backward()
    assert not found.any()
    assert zero.grad.abs().max() < 1e4


@pytest.mark.parametrize(("distance", "usual"), [("euclidean", 1.0), ("cosine", 0.1)])
def test_similarities_are_divided_by_the_temperature(distance: Any, usual: float) -> None:
    a, b = torch.randn(6, 4), torch.randn(3, 4)
    plain = -squared_distances(a, b) if distance == "euclidean" else cosines(a, b)
    torch.testing.assert_close(similarity(distance)(a, b), plain / usual)
    torch.testing.assert_close(similarity(distance, 0.25)(a, b), 4 * plain)


@pytest.mark.parametrize("temperature", [0, -1.0, float("inf"), float("nan"), True, "1"])
def test_a_temperature_is_above_zero(temperature: Any) -> None:
    with pytest.raises(UserError, match="temperature must be a number above 0 and finite"):
        similarity("cosine", temperature)


def test_another_distance_is_refused() -> None:
    with pytest.raises(UserError, match="unknown distance 'cosin': did you mean 'cosine'"):
        similarity("cosin")
