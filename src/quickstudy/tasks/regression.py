"""Families of one-dimensional functions as tasks: sinusoids, harmonics, lines, and five kinds mixed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch

from quickstudy.errors import TaskError
from quickstudy.tasks.chance import normals, uniforms
from quickstudy.tasks.sizes import Range
from quickstudy.tasks.task import Query, Support, Task


@dataclass(frozen=True)
class FunctionTasks(ABC):
    """Regression tasks: task i is a random function y = f(x), seen at `shot` points, judged at `query`.

    Args:
        shot: support points.
        query: query points.
        seed: which sequence of tasks.
        low, high: between which x lies.
        noise: standard deviation of the normal noise on every y, in support and query set.
    """

    shot: int = 10
    query: int = 10
    seed: int = 0
    low: float = -5.0
    high: float = 5.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        for word in ("shot", "query"):
            found = Range.of(word, getattr(self, word), 1)
            if found.low < found.high:
                raise TaskError(f"{word} must be one number for functions, not a range")
        if not self.low < self.high:
            raise TaskError(f"x runs from {self.low} to {self.high}: the lower number goes first")
        if not 0 <= self.noise < np.inf:
            raise TaskError(f"noise must be at least 0 and finite, not {self.noise}")

    @property
    def parameters(self) -> int:
        """How many uniform numbers a function is given by."""
        return 2

    @abstractmethod
    def function(self, u: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The functions given by uniform numbers u `[T, parameters]` at points x `[T, n]`."""

    def batch(self, indices: np.ndarray) -> Task:
        """Support `[T, shot, 1]` → `[T, shot, 1]` and query likewise, float32."""
        indices = np.asarray(indices)
        points = uniforms(self.seed, 1, indices, self.shot + self.query)
        x = self.low + (self.high - self.low) * points
        y = self.function(uniforms(self.seed, 0, indices, self.parameters), x)
        if self.noise:
            y = y + self.noise * normals(uniforms(self.seed, 2, indices, 2 * x.shape[1]))
        xs, ys = (torch.from_numpy(v[..., None]).float() for v in (x, y))  # [T, n, 1]
        k = self.shot
        return Task(Support(xs[:, :k], ys[:, :k]), Query(xs[:, k:], ys[:, k:]))

    def task(self, index: int) -> Task:
        """The task with this number."""
        return next(self.batch(np.array([index])).unbatch())

    def describe(self) -> dict[str, object]:
        """Family, shots, queries and seed, and where x lies and how noisy y is if it is not as usual."""
        told: dict[str, object] = {
            "data": type(self).__name__.lower(),
            "shot": self.shot,
            "query": self.query,
            "seed": self.seed,
        }
        if (self.low, self.high) != (FunctionTasks.low, FunctionTasks.high):
            told["x"] = [self.low, self.high]
        return told | ({"noise": self.noise} if self.noise else {})


class Sinusoids(FunctionTasks):
    """y = a sin(x − φ), a in 0.1…5, φ in 0…π, x in −5…5 (Finn et al. 2017, section 5.1).

    >>> Sinusoids(shot=10).task(3).support.x.shape
    torch.Size([10, 1])
    """

    def function(self, u: np.ndarray, x: np.ndarray) -> np.ndarray:
        amplitude, phase = 0.1 + 4.9 * u[:, :1], np.pi * u[:, 1:]
        return amplitude * np.sin(x - phase)


class Harmonics(FunctionTasks):
    """y = a₁ sin(ωx + b₁) + a₂ sin(2ωx + b₂), ω in 5…7, aᵢ in 0…1, bᵢ in 0…2π, x in −1…1 scaled to −5…5.

    After Lacoste et al. 2018, Uncertainty in multitask transfer learning, whose amplitudes are normal and
    whose points lie around a centre of each task's own.

    >>> Harmonics(shot=5, query=3).batch(np.arange(4)).query.y.shape
    torch.Size([4, 3, 1])
    """

    @property
    def parameters(self) -> int:
        return 5

    def function(self, u: np.ndarray, x: np.ndarray) -> np.ndarray:
        omega = 5 + 2 * u[:, :1]
        a1, a2, b1, b2 = (u[:, i : i + 1] for i in range(1, 5))
        t = x / max(abs(self.low), abs(self.high))
        turn = 2 * np.pi
        return a1 * np.sin(omega * t + turn * b1) + a2 * np.sin(2 * omega * t + turn * b2)


class Lines(FunctionTasks):
    """y = m x + c, m and c in −3…3: two points tell the rest.

    >>> task = Lines(shot=2, query=1).task(0)
    >>> (x0, x1), (y0, y1) = task.support.x[:, 0], task.support.y[:, 0]
    >>> bool(torch.isclose(y0 + (y1 - y0) / (x1 - x0) * (task.query.x - x0), task.query.y, atol=1e-4))
    True
    """

    def function(self, u: np.ndarray, x: np.ndarray) -> np.ndarray:
        return (6 * u[:, :1] - 3) * x + (6 * u[:, 1:] - 3)


@dataclass(frozen=True)
class FiveModes(FunctionTasks):
    """Sinusoids, lines, parabolas, absolute values and hyperbolic tangents, equally often, with noise.

    As in the code of Vuorio et al. 2019, Multimodal MAML, 1910.13616: a in 0.1…5 and φ in 0…π for
    a sin(x − φ), ±a in 0.02…0.15 for the parabola a (x − c)² + b, and else every number in −3…3.

    >>> FiveModes(shot=5, query=5).batch(np.arange(4)).support.x.shape
    torch.Size([4, 5, 1])
    """

    noise: float = 0.3

    @property
    def parameters(self) -> int:
        return 4

    def function(self, u: np.ndarray, x: np.ndarray) -> np.ndarray:
        kind, v = (5 * u[:, :1]).astype(int), u[:, 1:2]
        a, b, c = (6 * u[:, i : i + 1] - 3 for i in (1, 2, 3))
        bend = np.sign(v - 0.5) * (0.02 + 0.13 * np.abs(2 * v - 1))
        kinds = (
            (0.1 + 4.9 * v) * np.sin(x - np.pi * u[:, 2:3]),
            a * x + b,
            bend * (x - c) ** 2 + b,
            a * np.abs(x - c) + b,
            a * np.tanh(x - c) + b,
        )
        return np.take_along_axis(np.stack(kinds), kind[None], 0)[0]
