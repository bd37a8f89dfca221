from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from quickstudy.errors import DataError
from quickstudy.learners import Learner, ProtoNet
from quickstudy.learners.protonet import prototypes, squared_distances
from quickstudy.tasks import Task

pytestmark = pytest.mark.usefixtures("float64")


def test_prototypes_are_class_means() -> None:
    z, y = torch.randn(11, 5), torch.tensor([0, 1, 2, 2, 1, 0, 2, 3, 2, 1, 1])
    wanted = np.stack([np.mean([z[i].numpy() for i in range(11) if y[i] == c], axis=0) for c in range(4)])
    np.testing.assert_allclose(prototypes(z, y, 4).numpy(), wanted, rtol=1e-13)


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


def test_any_way_and_uneven_shots(make: Callable[..., ProtoNet]) -> None:
    learner, x = make("protonet"), torch.rand(9, 1, 16, 16)
    assert learner.adapt(x, torch.tensor([0, 0, 0, 1, 2, 2, 3, 4, 5]))(x[:2]).shape == (2, 6)


@pytest.mark.parametrize("name", ["protonet", "proto-maml", "pixel-nn"])
def test_real_targets_are_refused(make: Callable[..., Learner], name: str) -> None:
    with pytest.raises(DataError, match="needs class labels"):
        make(name).adapt(torch.rand(4, 1, 16, 16), torch.rand(4))
