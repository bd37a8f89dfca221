"""MAML++ part by part, beside an inner loop written out with torch.autograd.grad."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.data.dataset import ClassDataset
from quickstudy.inner import estimate
from quickstudy.learners import MAML, MAMLPlusPlus
from quickstudy.nets import BatchNorm, conv4, mlp
from quickstudy.outer import meta_train
from quickstudy.tasks import ClassTasks, Support, Task

from .common import scattered

pytestmark = pytest.mark.usefixtures("float64")

WIDTH, STEPS = 4, 3
NOTHING = {
    "multi_step_loss": False,
    "derivative_annealing": False,
    "learned_rates": False,
    "per_step_norm": False,
}


def make_task() -> Task:
    x, y = torch.randn(12, 3), torch.tensor([0, 0, 0, 1, 1, 1] * 2)
    return Task(Support(x[:6], y[:6], 2), Support(x[6:], y[6:], 2))


def small(norm: str = "support", **parts: Any) -> MAMLPlusPlus:
    """One layer with its normalisation; every number another one."""
    body = nn.Sequential(nn.Linear(3, WIDTH), BatchNorm(WIDTH), nn.Tanh())
    body.features, body.norm = WIDTH, norm
    learner = MAMLPlusPlus(body, way=2, inner_lr=0.3, steps=STEPS, **{**NOTHING, **parts})
    scattered(learner.net)
    with torch.no_grad():
        for rate in learner.rates.parameters():
            rate.uniform_(0.1, 0.5)
    return learner


class ByHand:
    """The net by its formula, with weights by name."""

    def __init__(self, learner: MAMLPlusPlus) -> None:
        self.start = {
            k: v.detach().clone().requires_grad_() for k, v in learner.net.named_parameters()
        }  # fmt: skip
        self.rates = {k: v.detach().clone().requires_grad_() for k, v in learner.rates.named().items()}
        self.layered, self.norm = learner.per_step_norm, learner.statistics

    def features(self, w: dict[str, Tensor], x: Tensor, step: int, by: Tensor) -> Tensor:
        """Features of x, normalised by the moments of `by` where these are a layer's inputs."""
        layer = f"body.1.{min(step, STEPS - 1)}" if self.layered else "body.1"
        z, other = (v @ w["body.0.weight"].T + w["body.0.bias"] for v in (x, by))
        away = other - other.mean(0)
        z = (z - other.mean(0)) / (away.square().mean(0) + 1e-5).sqrt()
        return torch.tanh(z * w[f"{layer}.weight"] + w[f"{layer}.bias"])

    def outer_losses(self, task: Task, second_order: bool) -> list[Tensor]:
        """The query loss after each step."""
        w, losses = dict(self.start), []
        moved = [k for k in w if not k.startswith("body.1")]
        x, query = task.support.x, task.query.x
        for step in range(STEPS):
            z = self.features(w, x, step, x)
            loss = F.cross_entropy(z @ w["head.weight"].T + w["head.bias"], task.support.y)
            grads = torch.autograd.grad(loss, [w[k] for k in moved], create_graph=True)
            for k, g in zip(moved, grads, strict=True):
                rate = self.rates[k.rpartition(".")[0]][step] if self.rates else 0.3
                w[k] = w[k] - rate * (g if second_order else g.detach())
            z = self.features(w, query, step, x if self.norm == "support" else query)
            losses.append(F.cross_entropy(z @ w["head.weight"].T + w["head.bias"], task.query.y))
        return losses


def check(learner: MAMLPlusPlus, weights: list[float], second_order: bool) -> None:
    """Outer loss and meta-gradient by initialisation and rates are those of the loop."""
    net, task = ByHand(learner), make_task()
    losses = net.outer_losses(task, second_order)
    loss = sum(w * each for w, each in zip(weights, losses, strict=True))
    wanted = torch.autograd.grad(loss, [*net.start.values(), *net.rates.values()], materialize_grads=True)
    outcome = learner(task)
    params = [*learner.net.parameters(), *learner.rates.named().values()]
    found = torch.autograd.grad(outcome.loss, params, materialize_grads=True)
    torch.testing.assert_close(outcome.loss, loss, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(outcome.metrics["loss"], losses[-1], rtol=1e-10, atol=1e-12)
    names = [*net.start, *net.rates]
    for name, a, b in zip(names, found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11, msg=lambda m, name=name: f"{name}: {m}")


LAST = [0.0, 0.0, 1.0]


@pytest.mark.parametrize("norm", ["support", "batch"])
@pytest.mark.parametrize("layered", [False, True])
@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("multi", [False, True])
def test_parts_by_hand(multi: bool, learned: bool, layered: bool, norm: str) -> None:
    learner = small(norm, multi_step_loss=multi, learned_rates=learned, per_step_norm=layered)
    check(learner, [1 / 3] * 3 if multi else LAST, second_order=True)


@pytest.mark.parametrize("multi", [False, True])
def test_first_order_until_a_third_of_meta_training(multi: bool) -> None:
    learner = small(derivative_annealing=True, multi_step_loss=multi, learned_rates=True)
    check(learner, [1 / 3] * 3 if multi else LAST, second_order=False)
    learner.after_step({}, {}, 0.33)
    check(learner, LAST, second_order=False)
    learner.after_step({}, {}, 0.34)
    check(learner, LAST, second_order=True)


def test_earlier_steps_count_less_and_less() -> None:
    learner = small(multi_step_loss=True)
    for progress, early in ((0.0, 1 / 3), (0.025, 0.25), (0.05, 1 / 6), (0.0999, 0.01), (0.1, 0.0)):
        learner.after_step({}, {}, progress)
        check(learner, [early, early, 1 - 2 * early], second_order=True)


def test_without_its_parts_it_is_maml(make: Callable[..., MAML], batch: Task) -> None:
    ours = make("maml++", steps=3, inner_params="all", inner_lr=0.3, **NOTHING)
    maml = make("maml", steps=3, inner_lr=0.3)
    maml.net.load_state_dict(ours.net.state_dict())
    (a, found), (b, wanted) = (estimate(learner, batch, "loop") for learner in (ours, maml))
    assert torch.equal(a.loss, b.loss)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[k], v) for k, v in wanted.items())


def test_meta_gradient_by_finite_differences(
    smooth: type[nn.Module], batch: Task, agrees: Callable[..., None]
) -> None:
    learner = MAMLPlusPlus(smooth(), way=3, inner_lr=0.3, steps=3, derivative_annealing=False)
    scattered(learner.net)
    agrees(learner, batch)


def test_the_moments_of_a_step_are_those_of_its_support_set() -> None:
    """Running averages are for the inner loop in use, which calls each step's layer on the support set."""
    several, last = small(multi_step_loss=True, per_step_norm=True), small(per_step_norm=True)
    last.net.load_state_dict(several.net.state_dict())
    task = make_task()
    ours, theirs = several(task).stats, last(task).stats
    assert len(ours) == 2 * STEPS
    assert ours.keys() == theirs.keys()
    for k, v in theirs.items():
        torch.testing.assert_close(ours[k], v, rtol=1e-12, atol=1e-12, msg=k)


def test_steps_beyond_those_of_meta_training_take_the_last_rates() -> None:
    learner, task = small(learned_rates=True).eval(), make_task()
    learner.test_steps = 5
    long = learner.adapt(task.support)(task.query.x)
    with torch.no_grad():
        rates = {k: torch.cat([v, v[-1:].expand(2)]) for k, v in learner.rates.named().items()}
    for name, rate in rates.items():
        learner.rates.register_parameter(name.replace(".", "/"), nn.Parameter(rate))
    assert torch.equal(learner.adapt(task.support)(task.query.x), long)


def test_a_body_without_batch_normalisation_has_nothing_for_each_step() -> None:
    assert len(list(MAMLPlusPlus(mlp(2), way=2).norms())) == 0
    assert len(list(MAMLPlusPlus(mlp(2, norm="support"), way=2, steps=3).norms())) == 2 * 3


def run_of(seed: int = 5) -> MAMLPlusPlus:
    torch.manual_seed(seed)
    return MAMLPlusPlus(conv4(4, size=16, blocks=2), way=3, steps=2)


def test_a_run_goes_on_at_the_stage_it_was_stopped_at(
    blobs: ClassDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stages change after the second meta-step and after the fifth."""
    options: dict[str, Any] = {"meta_batch": 2, "strategy": "vmap", "schedule": "constant"}
    tasks = ClassTasks(blobs, 3, 1, query=3, seed=1)
    whole, stages, after_step = run_of(), [], MAMLPlusPlus.after_step

    def noting(learner: MAMLPlusPlus, *args: Any) -> None:
        after_step(learner, *args)
        stages.append((learner.every_step, learner.first_order))

    monkeypatch.setattr(MAMLPlusPlus, "after_step", noting)
    meta_train(whole, tasks, iterations=12, **options)
    assert stages == [(True, True)] * 2 + [(False, True)] * 2 + [(False, False)] * 8

    for stop in (1, 3, 6):

        def stopping(learner: MAMLPlusPlus, *args: Any, stop: int = stop) -> None:
            after_step(learner, *args)
            if args[-1] == stop / 12:
                os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr(MAMLPlusPlus, "after_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            meta_train(run_of(), tasks, iterations=12, run=tmp_path / str(stop), **options)
        monkeypatch.setattr(MAMLPlusPlus, "after_step", after_step)
        resumed = run_of(seed=6)
        meta_train(resumed, tasks, iterations=12, run=tmp_path / str(stop), **options)
        assert all(torch.equal(v, resumed.state_dict()[k]) for k, v in whole.state_dict().items())


def test_a_reloaded_learner_is_at_its_stage() -> None:
    learner, other = run_of(), run_of(6)
    learner.after_step({}, {}, 0.5)
    assert (other.every_step, other.first_order) == (True, True)
    other.load_state_dict(learner.state_dict())
    assert (other.every_step, other.first_order) == (False, False)
    x, y, query = torch.rand(6, 1, 16, 16), [0, 0, 1, 1, 2, 2], torch.rand(4, 1, 16, 16)
    assert torch.equal(other.adapt(x, y)(query), learner.adapt(x, y)(query))
