from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import DataError, UserError
from quickstudy.inner import estimate
from quickstudy.learners import ProtoNet, SemiProtoNet
from quickstudy.learners.semi_protonet import Refinement, distribution
from quickstudy.tasks import ClassTasks, Support, Task

from .common import Make, close

pytestmark = pytest.mark.usefixtures("float64")
EVERY = get_args(Refinement)


@pytest.fixture
def beside(blobs: ClassDataset) -> Task:
    """Three 3-way 2-shot tasks with 4 unlabelled examples of each class and of 2 others, float64."""
    source = ClassTasks(blobs, 3, 2, query=3, seed=1, unlabelled=4, distractors=2)
    return source.batch(np.arange(3)).to(torch.float64)


def refined(learner: SemiProtoNet, z: Tensor, y: Tensor, u: Tensor) -> Tensor:
    """The paper's prototypes, by loops."""
    way = int(y.max()) + 1
    c = [torch.stack([z[i] for i in range(len(z)) if y[i] == n]).mean(0) for n in range(way)]
    d = torch.stack([torch.stack([((row - p) ** 2).sum() for p in c]) for row in u])  # [u, N]
    weight = torch.zeros(len(u), way)
    for j in range(len(u)):
        scores = [(-d[j, n]).exp() for n in range(way)]
        rest = torch.zeros(())
        if learner.refinement == "distractor":
            r = learner.log_radius.exp()
            rest = (-(u[j] ** 2).sum() / r**2).exp() / r
        for n in range(way):
            weight[j, n] = scores[n] / (sum(scores) + rest)
    if learner.refinement == "masked":
        for n in range(way):
            relative = d[:, n] / d[:, n].mean()
            a = relative.numpy()
            about = [a.min(), a.max(), a.var(), stats.skew(a), stats.kurtosis(a)]
            threshold, slope = learner.mask(torch.tensor(np.array(about))).exp()
            weight[:, n] *= 1 / (1 + (-slope * (threshold - relative)).exp())
    total = []
    for n in range(way):
        members = torch.stack([z[i] for i in range(len(z)) if y[i] == n])
        more = sum(weight[j, n] * u[j] for j in range(len(u)))
        total.append((members.sum(0) + more) / (len(members) + weight[:, n].sum()))
    return torch.stack(total)


@pytest.mark.parametrize("refinement", EVERY)
def test_prototypes_are_refined_as_in_the_paper(refinement: Any, make: Make, beside: Task) -> None:
    learner = make("semi-protonet", "layer", refinement=refinement)
    for task in beside.unbatch():
        with torch.no_grad():
            x, u, q = (learner.body(v) for v in (task.support.x, task.support.unlabelled, task.query.x))
            c = refined(learner, x, task.support.y, u)
        wanted = -((q[:, None] - c) ** 2).sum(-1)
        found = learner.adapt(task.support)(task.query.x)
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_the_distribution_is_the_statisticians() -> None:
    d = torch.rand(12, 3) ** 2
    a = d.numpy()
    wanted = np.stack([a.min(0), a.max(0), a.var(0), stats.skew(a), stats.kurtosis(a)], -1)
    np.testing.assert_allclose(distribution(d).numpy(), wanted, rtol=1e-5)


@pytest.mark.parametrize("refinement", EVERY)
def test_one_unlabelled_example_is_enough(refinement: Any, make: Make, beside: Task) -> None:
    learner, task = make("semi-protonet", refinement=refinement), next(beside.unbatch())
    s = task.support
    predictor = learner.adapt(Support(s.x, s.y, 3, unlabelled=s.unlabelled[:1]))
    assert torch.isfinite(predictor(task.query.x)).all()


@pytest.mark.parametrize("refinement", EVERY)
@pytest.mark.parametrize("norm", ["support", "batch", "layer"])
def test_without_unlabelled_examples_it_is_prototypical_networks(
    refinement: Any, norm: str, make: Make, batch: Task
) -> None:
    learner, task = make("semi-protonet", norm, refinement=refinement), next(batch.unbatch())
    wanted = ProtoNet(learner.body).adapt(task.support)(task.query.x)
    assert torch.equal(learner.adapt(task.support)(task.query.x), wanted)
    none = Support(task.support.x, task.support.y, 3, unlabelled=task.support.x[:0])
    assert torch.equal(learner.adapt(none)(task.query.x), wanted)


@pytest.mark.parametrize("refinement", EVERY)
def test_the_order_of_unlabelled_examples_does_not_matter(refinement: Any, make: Make, beside: Task) -> None:
    learner, task = make("semi-protonet", refinement=refinement), next(beside.unbatch())
    s = task.support
    other = Support(s.x, s.y, 3, unlabelled=s.unlabelled[torch.randperm(len(s.unlabelled))])
    torch.testing.assert_close(learner.adapt(other)(task.query.x), learner.adapt(s)(task.query.x))


@pytest.mark.parametrize("refinement", EVERY)
@pytest.mark.parametrize("norm", ["support", "batch", "running"])
def test_vmap_equals_the_loop_with_unlabelled_examples(
    refinement: Any, norm: str, make: Make, beside: Task
) -> None:
    learner = make("semi-protonet", norm, refinement=refinement)
    (loop, loop_gradient), (vmap, vmap_gradient) = (estimate(learner, beside, s) for s in ("loop", "vmap"))
    close(vmap.loss, loop.loss, "loss")
    for k, g in loop_gradient.items():
        close(vmap_gradient[k], g, k)
    assert loop_gradient.get("log_radius", torch.ones(())).abs().min() > 0


@pytest.mark.parametrize("refinement", ["soft", "distractor"])
def test_meta_gradient_by_finite_differences(
    refinement: Any, smooth: Callable[[str], nn.Module], beside: Task, agrees: Callable[..., None]
) -> None:
    learner = SemiProtoNet(smooth("support"), refinement=refinement)
    if refinement == "distractor":
        learner.log_radius.data.fill_(math.log(2.0))
    agrees(learner, beside)


def test_the_masks_network_is_what_the_mask_learns_by(
    smooth: Callable[[str], nn.Module], beside: Task
) -> None:
    """What it is told of the distances carries no gradient, as in the paper."""
    learner = SemiProtoNet(smooth("support"))
    _, gradient = estimate(learner, beside)
    assert all(gradient[k].abs().max() > 0 for k, _ in learner.named_parameters())
    u, c = torch.randn(6, 3, requires_grad=True), torch.randn(3, 3)
    found = torch.autograd.grad(learner.belonging(u, c).square().sum(), u)
    d = ((u[:, None] - c) ** 2).sum(-1)
    relative = d / d.mean(0)
    standard = (relative - relative.mean(0)) / relative.std(0, correction=0)
    moments = [relative.var(0, correction=0), standard.pow(3).mean(0), standard.pow(4).mean(0) - 3]
    told = torch.stack([relative.amin(0), relative.amax(0), *moments], -1).detach()
    threshold, slope = learner.mask(told).exp().unbind(-1)
    by_hand = (-d).softmax(-1) * (slope * (threshold - relative)).sigmoid()
    wanted = torch.autograd.grad(by_hand.square().sum(), u)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-9)
    with torch.no_grad():
        for p in learner.mask.parameters():
            p.zero_()
    # A network of zeros makes threshold and slope 1, whatever it is told.
    relative = ((u[:, None] - c) ** 2).sum(-1)
    relative = relative / relative.mean(0)
    wanted = (-((u[:, None] - c) ** 2).sum(-1)).softmax(-1) * (1 - relative).sigmoid()
    torch.testing.assert_close(learner.belonging(u, c), wanted, rtol=1e-6, atol=1e-8)


def test_unlabelled_examples_are_checked(make: Make) -> None:
    learner, x, y = make("semi-protonet"), torch.rand(3, 1, 16, 16), torch.arange(3)
    for bad, message in (
        (torch.rand(2, 1, 8, 8), r"unlabelled examples of shape \(2, 1, 8, 8\) beside"),
        (torch.full((2, 1, 16, 16), torch.nan), "unlabelled examples: one holds NaN"),
    ):
        with pytest.raises(DataError, match=message):
            learner.adapt(Support(x, y, 3, unlabelled=bad))


def test_another_refinement_is_refused(make: Make) -> None:
    with pytest.raises(UserError, match="unknown refinement 'mask': did you mean 'masked'"):
        make("semi-protonet", refinement="mask")
