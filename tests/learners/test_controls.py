from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import nn

from quickstudy.data.dataset import ClassDataset
from quickstudy.inner import estimate
from quickstudy.learners import (
    CONTROLS,
    Learner,
    PixelNN,
    PretrainCentroid,
    PretrainFinetune,
    ProtoNet,
    Scratch,
    Untrained,
)
from quickstudy.learners.pixel_nn import blurred
from quickstudy.nets import conv4
from quickstudy.tasks import SupervisedBatches, Task

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("blur", [0.5, 1.0, 1.5, 2.0, 3.0])
def test_the_blur_is_scipys(blur: float) -> None:
    """Where both stop at the same distance: scipy's bell is as long as it is told."""
    x = torch.rand(3, 2, 14, 11)
    reach = int(np.ceil(3 * blur))
    wanted = gaussian_filter(x.numpy(), blur, mode="constant", radius=reach, axes=(2, 3))
    np.testing.assert_allclose(blurred(x, blur).reshape(x.shape).numpy(), wanted, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("blur", [0.0, 1.5])
def test_nearest_neighbours_against_a_loop(blur: float, batch: Task) -> None:
    for task in batch.unbatch():
        a, b = (x.numpy() for x in (task.support.x, task.query.x))
        if blur:
            a, b = (gaussian_filter(x, blur, mode="constant", radius=5, axes=(2, 3)) for x in (a, b))
        wanted = np.full((len(b), 3), -np.inf)
        for i, q in enumerate(b):
            for s, label in zip(a, task.support.y.tolist(), strict=True):
                wanted[i, label] = max(wanted[i, label], -((q - s) ** 2).sum())
        logits = PixelNN(blur=blur).adapt(task.support)(task.query.x)
        np.testing.assert_allclose(logits.numpy(), wanted, rtol=1e-9, atol=1e-9)


def test_pixel_nn_takes_vectors_too() -> None:
    x = torch.eye(3)
    assert PixelNN().adapt(x, torch.tensor([2, 0, 1]))(x * 0.9).argmax(1).tolist() == [2, 0, 1]


def test_scratch_is_adam_from_the_net_as_initialised_with_a_zero_head(batch: Task) -> None:
    learner = Scratch(conv4(4, size=16, blocks=2, norm="layer"), way=3, steps=12, inner_lr=0.01)
    for task in batch.unbatch():
        net = copy.deepcopy(learner.net)
        for p in net.head.parameters():
            nn.init.zeros_(p)
        optimizer = torch.optim.Adam(net.parameters(), 0.01)
        for _ in range(12):
            optimizer.zero_grad()
            F.cross_entropy(net(task.support.x), task.support.y).backward()
            optimizer.step()
        wanted = net(task.query.x).detach()
        torch.testing.assert_close(learner.adapt(task.support)(task.query.x), wanted, rtol=1e-7, atol=1e-8)


def test_untrained_and_pretrained_centroids_are_prototypes(batch: Task) -> None:
    body = conv4(4, size=16, blocks=2)
    task = next(batch.unbatch())
    wanted = ProtoNet(body).adapt(task.support)(task.query.x)
    for learner in (Untrained(body), PretrainCentroid(body, classes=9)):
        assert torch.equal(learner.adapt(task.support)(task.query.x), wanted)


@pytest.mark.parametrize("name", ["pretrain-finetune", "pretrain-centroid", "simpleshot"])
def test_pretraining_is_ordinary_classification(
    name: str, make: Callable[..., PretrainFinetune | PretrainCentroid], blobs: ClassDataset
) -> None:
    learner = make(name, "batch")
    body = learner.net.body if isinstance(learner, PretrainFinetune) else learner.body
    batch = SupervisedBatches(blobs, size=30).batch(np.arange(1)).to(torch.float64)
    outcome, gradient = estimate(learner, batch)
    logits = learner.pretraining_head(body(batch.query.x[0]))
    loss = F.cross_entropy(logits, batch.query.y[0])
    torch.testing.assert_close(outcome.loss[0], loss.detach())
    accuracy = (logits.argmax(1) == batch.query.y[0]).double().mean()
    torch.testing.assert_close(outcome.metrics["accuracy"][0].double(), accuracy)
    for k, p in learner.named_parameters():
        if "net.head" in k:
            assert not gradient[k].any()  # thrown away before a task is met
        else:
            (wanted,) = torch.autograd.grad(loss, p, retain_graph=True)
            torch.testing.assert_close(gradient[k], wanted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["pretrain-finetune", "pretrain-centroid", "simpleshot"])
def test_pretraining_is_the_same_whatever_normalises_queries(
    name: str, make: Callable[..., Learner], blobs: ClassDataset
) -> None:
    """Bit for bit: a batch is normalised by itself, by the fused kernel."""
    learner, batch = make(name), SupervisedBatches(blobs, size=30).batch(np.arange(1)).to(torch.float64)
    outcomes = []
    for learner.statistics in ("support", "batch", "running"):
        outcome, gradient = estimate(learner, batch)
        outcomes.append({**gradient, **outcome.stats, "loss": outcome.loss})
    assert any("mean" in k for k in outcomes[0])
    assert all(torch.equal(other[k], v) for other in outcomes[1:] for k, v in outcomes[0].items())


def test_finetuning_starts_from_the_pretrained_body(batch: Task) -> None:
    """Before any step nothing is known of the classes; the pretraining head plays no part."""
    body, task = conv4(4, size=16, blocks=2), next(batch.unbatch())
    learner = PretrainFinetune(body, way=3, classes=9, steps=0)
    assert not learner.adapt(task.support)(task.query.x).any()
    learner.steps = 5
    first = learner.adapt(task.support)(task.query.x)
    with torch.no_grad():
        learner.pretraining_head.weight.zero_()
        learner.net.head.weight.normal_()
    assert torch.equal(learner.adapt(task.support)(task.query.x), first)


@pytest.mark.parametrize("name", CONTROLS)
def test_running_averages_are_offered_only_where_something_was_averaged(
    name: str, make: Callable[..., Learner]
) -> None:
    modes = {
        "pixel-nn": [],
        "untrained": ["support", "batch"],
        "scratch": ["support", "batch"],
        "pretrain-finetune": ["support", "running", "batch"],
        "pretrain-centroid": ["support", "running", "batch"],
    }
    learner = make(name, "running")
    assert learner.modes == modes[name]
    assert learner.statistics in (learner.modes or [None])


@pytest.mark.parametrize("name", CONTROLS)
def test_controls_beat_chance_on_easy_tasks(name: str, make: Callable[..., Learner], batch: Task) -> None:
    learner = make(name, **({"steps": 20} if name in ("scratch", "pretrain-finetune") else {}))
    accuracy = [
        (learner.adapt(t.support)(t.query.x).argmax(1) == t.query.y).double().mean() for t in batch.unbatch()
    ]
    assert float(torch.stack(accuracy).mean()) > 0.6
    assert learner.trains_on in ("nothing", "batches")
    for setting in learner.candidates():
        assert set(setting) <= set(vars(learner))
