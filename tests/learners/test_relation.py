from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from quickstudy.errors import UserError
from quickstudy.learners import RelationNet
from quickstudy.nets import BatchNorm, conv4
from quickstudy.outer.config import TrainConfig
from quickstudy.tasks import Task

from .common import Make, scattered

pytestmark = pytest.mark.usefixtures("float64")


def with_maps(norm: str, **options: Any) -> RelationNet:
    return scattered(RelationNet(conv4(4, size=16, norm=norm, halvings=2), **options))


def test_logits_are_the_relation_of_each_query_to_each_class_mean(batch: Task) -> None:
    learner, task = with_maps("layer"), next(batch.unbatch())
    z, q = (learner.body(part.x).view(-1, 4, 4, 4) for part in (task.support, task.query))
    predictor = learner.adapt(task.support)
    for i, row in enumerate(predictor(task.query.x)):
        for n in range(3):
            mean = torch.stack([z[j] for j in range(6) if task.support.y[j] == n]).mean(0)
            score = learner.relation(q[i : i + 1], mean[None])
            torch.testing.assert_close(row[n], score[0, 0].detach())


def test_it_is_trained_by_the_squared_error_of_the_relation_scores_or_by_cross_entropy(batch: Task) -> None:
    learner, task = with_maps("layer", objective="mse"), next(batch.unbatch())
    logits = learner.adapt(task.support)(task.query.x)
    wanted = torch.tensor([[float(task.query.y[i] == n) for n in range(3)] for i in range(len(task.query.y))])
    loss = ((1 / (1 + (-logits).exp()) - wanted) ** 2).mean()
    torch.testing.assert_close(learner(task).loss.detach(), loss)
    learner.objective = "cross-entropy"
    torch.testing.assert_close(learner(task).loss.detach(), F.cross_entropy(logits, task.query.y))
    with pytest.raises(UserError, match="unknown objective 'mes': did you mean 'mse'"):
        with_maps("layer", objective="mes")


@pytest.mark.parametrize("mode", ["support", "batch"])
def test_pairs_are_normalised_by_those_of_the_support_set_or_of_the_queries(mode: str, batch: Task) -> None:
    learner, task = with_maps(mode), next(batch.unbatch())
    layer = next(m for m in learner.relation.modules() if isinstance(m, BatchNorm))
    seen = []
    hook = layer.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    learner.adapt(task.support)(task.query.x)
    hook.remove()
    *of_support, (of_queries, found) = seen
    assert [len(x) for x, _ in of_support] == ([6 * 3] if mode == "support" else [])
    assert len(of_queries) == 9 * 3
    by = of_support[0][0] if mode == "support" else of_queries
    var, mean = torch.var_mean(by, (0, 2, 3), correction=0, keepdim=True)
    scale, shift = layer.weight.view(-1, 1, 1), layer.bias.view(-1, 1, 1)
    torch.testing.assert_close(
        found, ((of_queries - mean) / (var + layer.eps).sqrt() * scale + shift).detach()
    )


@pytest.mark.parametrize("mode", ["batch", "running"])
def test_averages_are_those_of_the_pairs_that_queries_make(mode: str, batch: Task) -> None:
    """In meta-training these are normalised by their own moments, so that they are what is averaged."""
    learner, task = with_maps(mode).train(), next(batch.unbatch())
    layer = learner.relation.rest[0]
    seen = []
    hook = layer.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0]))
    stats = learner(task).stats
    hook.remove()
    (of_queries,) = seen
    var, mean = torch.var_mean(of_queries, (0, 2, 3), correction=0)
    torch.testing.assert_close(stats["relation.rest.0.mean"], mean.detach())
    torch.testing.assert_close(stats["relation.rest.0.var"], var.detach())


def test_every_mode_applies_to_the_relation_module_too() -> None:
    learner = with_maps("support")
    assert learner.modes == ["support", "running", "batch"]
    assert {name.partition(".")[0] for name in learner.norms()} == {"body", "relation"}
    assert with_maps("layer").modes == []


@pytest.mark.parametrize("norm", ["support", "batch", "running"])
def test_meta_gradient_by_finite_differences(
    norm: str, smooth: Callable[[str], nn.Module], batch: Task, agrees: Callable[..., None]
) -> None:
    torch.manual_seed(1)
    agrees(RelationNet(smooth(norm), objective="mse"), batch)


def test_from_the_command_line_its_body_leaves_maps() -> None:
    for learner, shape in (("relation", (8, 7, 7)), ("protonet", (8, 1, 1))):
        assert TrainConfig(learner=learner, channels=8).make_body((1, 28, 28)).map_shape == shape


def test_a_body_whose_norm_is_not_named_is_compared_with_normalisation() -> None:
    body = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), BatchNorm(3))
    body.features = 3
    assert len(RelationNet(body).norms()) == 3


def test_any_way_and_uneven_shots(make: Make) -> None:
    learner, x = make("relation"), torch.rand(9, 1, 16, 16)
    predictor = learner.adapt(x, torch.tensor([0, 0, 0, 1, 2, 2, 3, 4, 5]))
    assert predictor(x[:2]).shape == (2, 6)
    assert predictor(x[:0]).shape == (0, 6)
