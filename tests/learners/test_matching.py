from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from quickstudy.errors import UserError
from quickstudy.learners import MatchingNet
from quickstudy.learners.matching import votes
from quickstudy.learners.similarity import similarity
from quickstudy.tasks import Task

from .common import Make

pytestmark = pytest.mark.usefixtures("float64")


def attention(q: Tensor, z: Tensor, y: Tensor, how: Any) -> Tensor:
    """The paper's class probabilities, by loops."""
    found = torch.zeros(len(q), int(y.max()) + 1)
    for i in range(len(q)):
        weights = how(q[i : i + 1], z)[0].exp()
        for j in range(len(z)):
            found[i, y[j]] += weights[j] / weights.sum()
    return found


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_probabilities_are_the_attention_each_class_gets(distance: Any, make: Make, batch: Task) -> None:
    learner = make("matching", "layer", distance=distance)
    for task in batch.unbatch():
        z, q = learner.body(task.support.x).detach(), learner.body(task.query.x).detach()
        wanted = attention(q, z, task.support.y, similarity(distance))
        found = learner.adapt(task.support).probabilities(task.query.x)
        torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10)


def test_votes_of_large_scores_stay_finite() -> None:
    scores, member = (
        torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True),
        torch.tensor([[1, 0], [0, 1], [0, 1]]),
    )
    found = votes(scores, member)
    found.sum().backward()
    torch.testing.assert_close(found, torch.tensor([[1e4, -math.log(2)]]))
    torch.testing.assert_close(scores.grad, torch.tensor([[1.0, 0.0, 1.0]]))


def test_an_example_given_twice_says_no_more_than_once(make: Make) -> None:
    learner, x, y = make("matching", "layer"), torch.rand(3, 1, 16, 16), torch.arange(3)
    often, query = torch.tensor([0, 0, 0, 1, 2]), torch.rand(4, 1, 16, 16)
    torch.testing.assert_close(learner.adapt(x[often], y[often])(query), learner.adapt(x, y)(query))


@pytest.mark.parametrize("full_context", [False, True])
def test_meta_gradient_by_finite_differences(
    full_context: bool, smooth: Callable[[str], nn.Module], batch: Task, agrees: Callable[..., None]
) -> None:
    agrees(MatchingNet(smooth("support"), full_context=full_context, steps=2), batch)


def test_with_full_context_embeddings_depend_on_the_support_set(make: Make, batch: Task) -> None:
    learner, task = make("matching", "layer", full_context=True), next(batch.unbatch())
    z, q = learner.body(task.support.x), learner.body(task.query.x)
    g = learner.support_context(z)
    wanted = attention(learner.query_context(q, g), g, task.support.y, similarity("cosine"))
    found = learner.adapt(task.support).probabilities(task.query.x)
    torch.testing.assert_close(found, wanted.detach(), rtol=1e-8, atol=1e-10)
    backwards = learner.adapt(task.support.x.flip(0), task.support.y.flip(0)).probabilities(task.query.x)
    assert not torch.allclose(found, backwards)


def test_queries_do_not_see_each_other(make: Make, batch: Task) -> None:
    learner, task = make("matching", full_context=True), next(batch.unbatch())
    predictor = learner.adapt(task.support)
    alone = torch.cat([predictor(x[None]) for x in task.query.x])
    torch.testing.assert_close(predictor(task.query.x), alone)


def test_a_query_looks_at_least_once(make: Make) -> None:
    with pytest.raises(UserError, match="steps must be at least 1, not 0"):
        make("matching", full_context=True, steps=0)
