"""How alike two features are: minus their squared Euclidean distance, or their cosine, over a temperature."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from quickstudy.errors import UserError, unknown

Distance = Literal["euclidean", "cosine"]
Similarity = Callable[[Tensor, Tensor], Tensor]
"""`[q, D]` and `[N, D]` → `[q, N]`, larger where they are more alike."""
TEMPERATURES: dict[str, float] = {"euclidean": 1.0, "cosine": 0.1}
"""Usual temperatures. Cosines lie within -1 and 1: a softmax of them as they are stays near uniform however
well an embedding tells classes apart, and so does its gradient."""


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """‖aᵢ − bⱼ‖²: `[q, D]` and `[N, D]` → `[q, N]`.

    >>> squared_distances(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0], [1.0, 0.0]]))
    tensor([[25.,  1.]])
    """
    centre = b.mean(0).detach()  # which no distance depends on; far from 0 the squares would cancel badly
    a, b = a - centre, b - centre
    return a.square().sum(-1)[:, None] - 2 * a @ b.T + b.square().sum(-1)


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """aᵢ·bⱼ / ‖aᵢ‖‖bⱼ‖: `[q, D]` and `[N, D]` → `[q, N]`.

    >>> cosines(torch.tensor([[3.0, 4.0]]), torch.tensor([[6.0, 8.0], [-4.0, 3.0]]))
    tensor([[1., 0.]])
    """
    return direction(a) @ direction(b).T


def direction(x: Tensor) -> Tensor:
    """Features `[n, D]` of length 1; those of zeros, which have none, stay so, with a gradient of their size.

    >>> direction(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    squared = x.square().sum(-1, keepdim=True)
    return x * torch.where(squared > 0, squared, 1.0).rsqrt()


def similarity(distance: Distance, temperature: float | None = None) -> Similarity:
    """The function that says how alike features are.

    Args:
        distance: euclidean, its square, or cosine.
        temperature: what similarities are divided by; by default 1, of cosines 0.1.

    Raises:
        UserError: another distance, or a temperature that is not above 0.

    >>> similarity("euclidean", 2.0)(torch.zeros(1, 2), torch.ones(1, 2))
    tensor([[-1.]])
    """
    if distance not in TEMPERATURES:
        raise unknown("distance", str(distance), TEMPERATURES)
    t = TEMPERATURES[distance] if temperature is None else temperature
    if isinstance(t, bool) or not isinstance(t, (int, float)) or not 0 < t < math.inf:
        raise UserError(f"temperature must be a number above 0 and finite, not {t!r}")
    if distance == "cosine":
        return lambda a, b: cosines(a, b) / t
    return lambda a, b: -squared_distances(a, b) / t
