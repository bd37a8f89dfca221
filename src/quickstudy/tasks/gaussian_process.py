"""Draws from a Gaussian process as regression tasks, and the exact posterior that a learner can come near.

After Rasmussen and Williams 2006, Gaussian Processes for Machine Learning, algorithm 2.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from quickstudy.errors import TaskError
from quickstudy.tasks.chance import normals, uniforms
from quickstudy.tasks.regression import FunctionTasks

Size = float | tuple[float, float]


@dataclass(frozen=True)
class GaussianProcesses(FunctionTasks):
    """y = f(x) + noise, f drawn from a Gaussian process of kernel scale² exp(−(x − x')² / (2 length²)).

    Args:
        length: how far apart x may be for f to be alike, or (lowest, highest) drawn for each task.
        scale: the standard deviation of f, or (lowest, highest) drawn for each task.

    Raises:
        TaskError: sizes that are not above 0.

    >>> source = GaussianProcesses(shot=10, query=50)
    >>> source.task(3).query.y.shape, source.log_likelihood(np.arange(4)).shape
    (torch.Size([50, 1]), torch.Size([4]))
    """

    low: float = -2.0
    high: float = 2.0
    length: Size = 0.5
    scale: Size = 1.0
    noise: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        for word in ("length", "scale"):
            low, high = _range(getattr(self, word))
            if not 0 < low <= high < math.inf:
                raise TaskError(f"{word} must be above 0, or (lowest, highest), not {getattr(self, word)}")
        if not self.noise:
            raise TaskError("noise must be above 0: without it a likelihood has no bound")

    @property
    def parameters(self) -> int:
        return 2 + 2 * (self.shot + self.query)

    def function(self, u: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Values at all points of a task together: f is nothing but its values there."""
        # The kernel alone is singular to rounding; what is added is far below any noise.
        root = np.linalg.cholesky(self.kernel(u, x, x) + 1e-8 * np.eye(x.shape[1]))
        return (root @ normals(u[:, 2:])[..., None])[..., 0]

    def kernel(self, u: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The covariance `[T, n, m]` of f at points `[T, n]` and `[T, m]`."""
        (shortest, longest), (least, most) = _range(self.length), _range(self.scale)
        length = (shortest + (longest - shortest) * u[:, 0])[:, None, None]
        scale = (least + (most - least) * u[:, 1])[:, None, None]
        return scale**2 * np.exp(-0.5 * ((a[:, :, None] - b[:, None, :]) / length) ** 2)

    def posterior(self, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        """What is known of a query's y, given a task's support set and its kernel.

        Returns:
            The mean and standard deviation of each y `[T, query, 1]`, noise included, float64.
        """
        indices, task = np.asarray(indices), self.batch(indices)
        u = uniforms(self.seed, 0, indices, self.parameters)
        x, y, q = (v[..., 0].double().numpy() for v in (task.support.x, task.support.y, task.query.x))
        root = np.linalg.cholesky(self.kernel(u, x, x) + self.noise**2 * np.eye(self.shot))  # L
        across = np.linalg.solve(root, self.kernel(u, x, q))  # L⁻¹ k(x, q) [T, shot, query]
        mean = across.swapaxes(1, 2) @ np.linalg.solve(root, y[..., None])  # [T, query, 1]
        prior = self.kernel(u, q[:, :1], q[:, :1])  # the variance of f at a point, the same everywhere
        var = prior - (across**2).sum(1)[..., None] + self.noise**2  # [T, query, 1]
        return torch.from_numpy(mean), torch.from_numpy(np.sqrt(var))

    def log_likelihood(self, indices: np.ndarray) -> Tensor:
        """The exact posterior's log-likelihood of each task's queries, in nats a point `[T]`.

        Each query is judged by itself, as a predictor is that answers one query at a time: none that knows no
        more than the support set does better on average.
        """
        mean, std = self.posterior(indices)
        y = self.batch(indices).query.y.double()
        return torch.distributions.Normal(mean, std).log_prob(y).mean((1, 2))

    def describe(self) -> dict[str, object]:
        """As every family, and the kernel."""
        return {**super().describe(), "length": self.length, "scale": self.scale}


def _range(size: Size) -> tuple[float, float]:
    return size if isinstance(size, tuple) else (size, size)
