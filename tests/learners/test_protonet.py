from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from quickstudy.errors import DataError
from quickstudy.learners import Learner, ProtoNet
from quickstudy.learners.protonet import prototypes
from quickstudy.tasks import Task

pytestmark = pytest.mark.usefixtures("float64")


def test_prototypes_are_class_means() -> None:
    z, y = torch.randn(11, 5), torch.tensor([0, 1, 2, 2, 1, 0, 2, 3, 2, 1, 1])
    wanted = np.stack([np.mean([z[i].numpy() for i in range(11) if y[i] == c], axis=0) for c in range(4)])
    np.testing.assert_allclose(prototypes(z, y, 4).numpy(), wanted, rtol=1e-13)


@pytest.mark.parametrize("norm", ["support", "batch", "running"])
def test_meta_gradient_by_finite_differences(
    norm: str, smooth: Callable[[str], nn.Module], batch: Task, agrees: Callable[..., None]
) -> None:
    agrees(ProtoNet(smooth(norm)), batch)


def test_logits_are_minus_squared_distances(make: Callable[..., ProtoNet], batch: Task) -> None:
    learner = make("protonet", "layer")
    for task in batch.unbatch():
        z, q = learner.body(task.support.x).detach(), learner.body(task.query.x).detach()
        c = torch.stack([z[task.support.y == n].mean(0) for n in range(3)])
        wanted = -((q[:, None] - c) ** 2).sum(-1)
        torch.testing.assert_close(learner.adapt(task.support)(task.query.x), wanted)
        torch.testing.assert_close(learner(task).loss.detach(), F.cross_entropy(wanted, task.query.y))


@pytest.mark.parametrize(("distance", "temperature"), [("cosine", None), ("cosine", 0.5), ("euclidean", 4.0)])
def test_other_distances_and_temperatures(
    distance: str, temperature: float | None, make: Callable[..., ProtoNet], batch: Task
) -> None:
    learner = make("protonet", "layer", distance=distance, temperature=temperature)
    task = next(batch.unbatch())
    z, q = learner.body(task.support.x).detach(), learner.body(task.query.x).detach()
    c = torch.stack([z[task.support.y == n].mean(0) for n in range(3)])
    if distance == "cosine":
        wanted = F.cosine_similarity(q[:, None], c, dim=-1) / (temperature or 0.1)
    else:
        wanted = -((q[:, None] - c) ** 2).sum(-1) / temperature
    torch.testing.assert_close(learner.adapt(task.support)(task.query.x), wanted)


def test_any_way_and_uneven_shots(make: Callable[..., ProtoNet]) -> None:
    learner, x = make("protonet"), torch.rand(9, 1, 16, 16)
    assert learner.adapt(x, torch.tensor([0, 0, 0, 1, 2, 2, 3, 4, 5]))(x[:2]).shape == (2, 6)


@pytest.mark.parametrize(
    "name", ["protonet", "proto-maml", "matching", "relation", "siamese", "semi-protonet", "pixel-nn"]
)
def test_real_targets_are_refused(make: Callable[..., Learner], name: str) -> None:
    with pytest.raises(DataError, match="needs class labels"):
        make(name).adapt(torch.rand(4, 1, 16, 16), torch.rand(4))
