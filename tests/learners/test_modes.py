"""Whose statistics normalise a query, and whether it is transductive, for every learner."""

from __future__ import annotations

import gc
from dataclasses import replace

import pytest
import torch
from torch import nn

from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import UserError
from quickstudy.inner import estimate
from quickstudy.learners import LEARNERS, Predictor, ProtoNet
from quickstudy.nets import conv4
from quickstudy.nets.norm import Moments
from quickstudy.outer import meta_train
from quickstudy.tasks import ClassTasks, Support, Task

from .common import ALL, Make, close, few_steps

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("norm", ["support", "batch", "running", "group", "layer", "none"])
def test_transductive_is_declared_exactly_where_it_is(name: str, norm: str, make: Make, batch: Task) -> None:
    learner, task = few_steps(name, make, norm), next(batch.unbatch())
    predictor = learner.adapt(task.support)
    together = predictor(task.query.x)
    apart = torch.cat([predictor(x[None]) for x in task.query.x])
    depends = (together - apart).abs().max() > 1e-6
    assert (
        bool(depends)
        == predictor.transductive
        == learner.transductive
        == (norm == "batch" and name != "pixel-nn")
    )


@pytest.mark.parametrize("name", LEARNERS)
def test_each_mode_can_be_chosen_after_training(name: str, make: Make, batch: Task) -> None:
    learner, task = few_steps(name, make), next(batch.unbatch())
    assert learner.modes == ["support", "running", "batch"]
    outputs = []
    for mode in learner.modes:
        learner.statistics = mode
        outputs.append(learner.adapt(task.support)(task.query.x))
    for i in range(3):
        assert not torch.allclose(outputs[i], outputs[i - 1])
    assert make(name, "layer").modes == []


def test_running_averages_move_by_a_twentieth(make: Make, batch: Task) -> None:
    learner = make("protonet")
    before = {k: v.clone() for k, v in learner.named_buffers()}
    outcome, gradient = estimate(learner, batch)
    learner.after_step({k: v.mean(0) for k, v in outcome.stats.items()}, gradient, 0.0)
    means = []
    for task in batch.unbatch():  # the moments of the first layer by hand
        z = learner.body[0].conv(task.support.x)
        means.append((z.mean((0, 2, 3)), z.var((0, 2, 3), unbiased=False)))
    after = dict(learner.named_buffers())
    for i, k in enumerate(("body.0.norm.mean", "body.0.norm.var")):
        close(after[k], 0.95 * before[k] + 0.05 * torch.stack([m[i] for m in means]).mean(0).detach(), k)


def test_a_net_that_normalises_its_own_way_is_refused() -> None:
    for track in (True, False):
        body = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=track))
        with pytest.raises(UserError, match=r"layer '1' .*convert_batch_norm"):
            ProtoNet(body)
    body = nn.Sequential(nn.Conv1d(1, 3, 1), nn.InstanceNorm1d(3, track_running_stats=True))
    with pytest.raises(UserError, match=r"layer '1' writes running averages .*track_running_stats=False"):
        ProtoNet(body)
    assert ProtoNet(nn.InstanceNorm1d(3)).modes == []


def test_a_layer_that_waits_for_an_example_is_refused() -> None:
    body = nn.Sequential(nn.LazyLinear(3), nn.ReLU())
    with pytest.raises(UserError, match="layer '0' has no weights yet: call the net with an example first"):
        ProtoNet(body)
    body(torch.rand(2, 4))
    assert ProtoNet(body).adapt(torch.rand(4, 4), [0, 0, 1, 1])(torch.rand(3, 4)).shape == (3, 2)


class Forgetful(ProtoNet):
    """Hands on no moments of its support set."""

    def learn(self, support: Support) -> Predictor:
        return replace(super().learn(support), moments=Moments())


def test_running_averages_need_moments_to_average(blobs: ClassDataset) -> None:
    source = ClassTasks(blobs, 3, 2, query=3)
    running = Forgetful(conv4(4, size=16, blocks=2, norm="running")).double()
    with pytest.raises(UserError, match=r"Forgetful .*hands on no moments .*moments=moments"):
        meta_train(running, source, iterations=1)
    for kind, modes in ((Forgetful, ["support", "batch"]), (ProtoNet, ["support", "running", "batch"])):
        learner = kind(conv4(4, size=16, blocks=2)).double()
        assert learner.modes == ["support", "batch"]  # nothing was averaged yet
        meta_train(learner, source, iterations=1)
        assert learner.modes == modes


def test_a_predictor_by_batch_statistics_keeps_none_of_its_queries(make: Make, batch: Task) -> None:
    for name in ("protonet", "maml"):
        task = next(batch.unbatch())
        predictor = few_steps(name, make, "batch").adapt(task.support)
        predictor(task.query.x)
        gc.collect()
        before = sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())
        for _ in range(3):
            predictor(task.query.x)
        gc.collect()
        assert sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects()) == before, name
