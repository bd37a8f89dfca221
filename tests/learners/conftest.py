"""Small learners and tasks in float64, and the meta-gradient by finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from quickstudy.data.dataset import ClassDataset
from quickstudy.inner import estimate
from quickstudy.learners import Learner, build
from quickstudy.nets import BatchNorm, conv4
from quickstudy.tasks import ClassTasks, Task

from .common import scattered


class Smooth(nn.Sequential):
    """A body without kinks, where finite differences are exact: convolution, norm, tanh, mean pooling."""

    def __init__(self, norm: str = "support") -> None:
        super().__init__(
            nn.Conv2d(1, 3, 3, stride=2),
            BatchNorm(3),
            nn.Tanh(),
            nn.AvgPool2d(3),
            nn.Flatten(),
            nn.Linear(12, 4),
            nn.Tanh(),
        )
        self.features, self.norm = 4, norm


@pytest.fixture
def smooth() -> type[Smooth]:
    return Smooth


@pytest.fixture
def batch(blobs: ClassDataset) -> Task:
    """Three 3-way 2-shot tasks, float64."""
    return ClassTasks(blobs, 3, 2, query=3, seed=1).batch(np.arange(3)).to(torch.float64)


@pytest.fixture
def make() -> Callable[..., Learner]:
    """`make(name, norm=…, **options)`: a learner with a small conv4 body, scales and shifts not 1 and 0."""

    def make_learner(name: str, norm: str = "support", way: int = 3, **options: Any) -> Learner:
        body = scattered(conv4(4, size=16, blocks=2, norm=norm))
        return build(name, body, way=way, classes=8, settings=options).double()

    return make_learner


@pytest.fixture
def agrees() -> Callable[..., None]:
    """Check `estimate` against central differences along one random direction for each parameter."""

    def check(learner: Learner, tasks: Task, *, eps: float = 1e-5, rtol: float = 1e-6) -> None:
        _, gradient = estimate(learner, tasks)

        def value() -> float:
            return float(torch.stack([learner(task).loss.detach() for task in tasks.unbatch()]).mean())

        largest = max(g.norm().item() for g in gradient.values())
        assert largest > 1e-3
        for name, p in learner.named_parameters():
            if not p.requires_grad:
                continue
            direction = torch.randn_like(p)
            direction /= direction.norm()
            kept = p.detach().clone()
            values = []
            for side in (eps, -eps):
                p.data = kept + side * direction
                values.append(value())
            p.data = kept
            slope = (values[0] - values[1]) / (2 * eps)
            wanted = float((gradient[name] * direction).sum())
            assert slope == pytest.approx(wanted, rel=rtol, abs=rtol * largest), name

    return check
