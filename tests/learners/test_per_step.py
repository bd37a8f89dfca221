"""Learners with batch normalisation for each inner step, by value: their inner loops written out by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.data.dataset import ClassDataset
from quickstudy.inner import estimate, flat, truncated
from quickstudy.learners import MAML, Learner, ProtoMAML, ProtoNet, Reptile
from quickstudy.nets import BatchNorm, conv4, convert_batch_norm, native, per_step
from quickstudy.outer import meta_train
from quickstudy.tasks import ClassTasks, Support, Task

from .common import DESCENDING, Make, few_steps, scattered

pytestmark = pytest.mark.usefixtures("float64")

WIDTH, RATE = 4, 0.3
Pair = tuple[Tensor, Tensor]
METHODS = {
    "unrolled": "unrolled",
    "flat": partial(flat, keep=0),
    "first-order": "first-order",
    "truncated": truncated(1),
}
EXACT = {"unrolled": 99, "flat": 99, "first-order": 0, "truncated": 1}
"""Of how many last steps the gradient carries a meta-gradient."""


def body(norm: str, layers: int) -> nn.Sequential:
    net = nn.Sequential(nn.Linear(3, WIDTH), BatchNorm(WIDTH), nn.Tanh())
    net.features, net.norm = WIDTH, norm
    return scattered(per_step(net, layers))


class ByHand:
    """The same net by its formula; it notes the moments `[W]` it normalised by, under the layer's number."""

    def __init__(self, learner: Learner, layers: int) -> None:
        self.state = {k.removeprefix("net."): v.detach().clone() for k, v in learner.state_dict().items()}
        self.start = {
            k: v.requires_grad_() for k, v in self.state.items() if not k.endswith((".mean", ".var"))
        }
        self.layers, self.noted = layers, {}

    def __call__(self, w: dict[str, Tensor], x: Tensor, step: int, given: Pair | str | None = None) -> Tensor:
        s = min(step, self.layers - 1)
        z = x @ w["body.0.weight"].T + w["body.0.bias"]
        if given == "running":
            given = self.state[f"body.1.{s}.mean"], self.state[f"body.1.{s}.var"]
        if given is None:
            given = self.noted[s] = z.mean(0), (z - z.mean(0)).square().mean(0)
        z = (z - given[0]) / (given[1] + 1e-5).sqrt() * w[f"body.1.{s}.weight"] + w[f"body.1.{s}.bias"]
        return torch.tanh(z) @ w["head.weight"].T + w["head.bias"]


def by_hand(
    net: ByHand, task: Task, norm: str, moved: Callable[[str], bool], steps: int, exact: int, training: bool
) -> tuple[Tensor, list[Tensor], dict[str, Tensor]]:
    """The query logits, the support losses and the weights at the end."""
    x, y = task.support.x, task.support.y
    own, last = "running" if norm == "running" and not training else None, net.layers - 1
    w, losses = dict(net.start), []
    for step in range(steps):
        losses.append(F.cross_entropy(net(w, x, step, own), y))
        names = [k for k in w if moved(k)]
        graph = step >= steps - exact
        grads = torch.autograd.grad(
            losses[-1], [w[k] for k in names], create_graph=graph, retain_graph=True, materialize_grads=True
        )
        w |= {k: w[k] - RATE * (g if graph else g.detach()) for k, g in zip(names, grads, strict=True)}
    net(w, x, last, own)
    given = net.noted[last] if norm == "support" else own
    noted = dict(net.noted)
    logits = net(w, task.query.x, last, given)
    net.noted = noted  # queries are no part of it
    return logits, losses, w


def make_task() -> Task:
    x, y = torch.randn(12, 3), torch.tensor([0, 0, 0, 1, 1, 1] * 2)
    return Task(Support(x[:6], y[:6], 2), Support(x[6:], y[6:], 2))


def moved_by(inner_params: str) -> Callable[[str], bool]:
    return {
        "all": lambda k: True,
        "filters": lambda k: not k.startswith("body.1."),
        "head": lambda k: k.startswith("head."),
    }[inner_params]


def close(a: Tensor, b: Tensor, what: str) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10, msg=lambda m: f"{what}: {m}")


@pytest.mark.parametrize("norm", ["support", "batch", "running"])
@pytest.mark.parametrize("inner_params", ["all", "filters", "head"])
@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize(("steps", "layers"), [(3, 3), (5, 3), (2, 3)])
def test_training_by_value(steps: int, layers: int, method: str, inner_params: str, norm: str) -> None:
    """Losses, adapted weights, each step's moments, and the meta-gradient by each step's scale and shift."""
    learner = MAML(body(norm, layers), way=2, inner_lr=RATE, steps=steps, inner_params=inner_params)
    learner.gradient = METHODS[method]
    task, net = make_task(), ByHand(learner, layers)
    logits, losses, w = by_hand(net, task, norm, moved_by(inner_params), steps, EXACT[method], True)
    start = list(net.start.values())
    wanted = torch.autograd.grad(F.cross_entropy(logits, task.query.y), start, materialize_grads=True)

    outcome = learner(task)
    weights, solution, _ = learner.descend(task.support)
    close(outcome.outputs, logits, "logits")
    close(torch.stack(solution.losses), torch.stack(losses), "losses")
    for k, v in w.items():
        close(weights[k], v, k)
    assert set(outcome.stats) == {f"net.body.1.{s}.{k}" for s in net.noted for k in ("mean", "var")}
    for s, moments in net.noted.items():
        for k, v in zip(("mean", "var"), moments, strict=True):
            close(outcome.stats[f"net.body.1.{s}.{k}"], v, f"{k} of {s}")
    grads = torch.autograd.grad(outcome.loss, list(learner.net.parameters()), materialize_grads=True)
    for k, found, g in zip(net.start, grads, wanted, strict=True):
        close(found, g, f"by {k}")


@pytest.mark.parametrize("norm", ["support", "batch", "running"])
@pytest.mark.parametrize("test_steps", [0, 2, 5])
def test_use_by_value(test_steps: int, norm: str) -> None:
    learner = MAML(body(norm, 3), way=2, inner_lr=RATE, steps=3, test_steps=test_steps).eval()
    task, net = make_task(), ByHand(learner, 3)
    logits, losses, _ = by_hand(net, task, norm, moved_by("all"), test_steps, 0, False)
    predictor = learner.adapt(task.support)
    close(predictor(task.query.x), logits, "logits")
    assert len(predictor.losses) == test_steps
    for a, b in zip(predictor.losses, losses, strict=True):
        close(a, b, "loss")


@pytest.mark.parametrize("inner_params", ["all", "filters", "head"])
@pytest.mark.parametrize("steps", [2, 4])
def test_meta_gradient_by_finite_differences(
    steps: int, inner_params: str, smooth: type[nn.Module], batch: Task, agrees: Callable[..., None]
) -> None:
    body = scattered(per_step(smooth(), 3))
    agrees(MAML(body, way=3, inner_lr=0.3, steps=steps, inner_params=inner_params), batch)


@pytest.mark.parametrize("steps", [0, 3])
def test_prototypes_are_those_of_the_first_step(
    steps: int, smooth: type[nn.Module], batch: Task, agrees: Callable[..., None]
) -> None:
    body, task = scattered(per_step(smooth(), 3)), next(batch.unbatch())
    learner = ProtoMAML(body, inner_lr=0.1, steps=steps)
    agrees(learner, batch)
    z = body[0](task.support.x)
    z = F.batch_norm(z, None, None, body[1][0].weight, body[1][0].bias, training=True)
    for layer in list(body)[2:]:
        z = layer(z)
    means = torch.stack([z[task.support.y == c].mean(0) for c in range(3)])
    close(learner.start(task.support)["head.weight"], 2 * means, "head")


# -- the engine's ways to compute it ----------------------------------------------------------------------


@pytest.fixture
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def computed(learner: Learner, batch: Task, strategy: str) -> dict[str, Tensor]:
    outcome, gradient = estimate(learner, batch, strategy)
    return {**gradient, **outcome.stats, "losses": outcome.loss}


@pytest.mark.parametrize("method", ["unrolled", "flat", "first-order"])
@pytest.mark.parametrize("inner_params", ["all", "filters"])
@pytest.mark.parametrize("norm", ["support", "batch"])
@pytest.mark.usefixtures("_threads")
def test_strategies_and_kernels_agree(norm: str, inner_params: str, method: str, batch: Task) -> None:
    net = scattered(per_step(conv4(4, size=16, blocks=2, norm=norm), 3))
    learner = MAML(net, way=3, inner_lr=0.1, steps=4, inner_params=inner_params).double()
    with native.allowing(False):
        learner.gradient = "unrolled" if method == "flat" else METHODS[method]
        wanted = computed(learner, batch, "loop")
        learner.gradient = METHODS[method]
        found = {"torch, vmap": computed(learner, batch, "vmap")}
    assert sum(k.endswith(".mean") for k in wanted) == 2 * 3
    if native.build(dtype=torch.float64):
        found |= {f"native, {how}": computed(learner, batch, how) for how in ("loop", "vmap")}
        torch.set_num_threads(3)
        computed(learner, batch, "threads")  # which watch the first time
        side_by_side = computed(learner, batch, "threads")
        assert all(torch.equal(v, found["native, loop"][k]) for k, v in side_by_side.items())
    for how, values in found.items():
        assert values.keys() == wanted.keys()
        for k, v in wanted.items():
            close(values[k], v, f"{how}: {k}")


# Meta-SGD's rates are those of the layers it was made with.
@pytest.mark.parametrize(
    "name", [*(k for k in DESCENDING if k != "meta-sgd"), "protonet", "pretrain-centroid"]
)
@pytest.mark.parametrize("norm", ["support", "batch", "running"])
def test_one_layer_is_as_none(name: str, norm: str, make: Make, batch: Task) -> None:
    own = {"per_step_norm": False} if name == "maml++" else {}  # which else has layers for each step itself
    plain = few_steps(name, make, norm, **own)
    ours, task = per_step(copy.deepcopy(plain), 1), next(batch.unbatch())
    predictions = [learner.adapt(task.support)(task.query.x) for learner in (plain, ours)]
    close(*predictions, "predictions")
    if plain.trains_on == "tasks":
        tasks = plain.prepare(batch, torch.Generator().manual_seed(1))
        (outcome, gradient), (a, b) = (estimate(each, tasks, "loop") for each in (plain, ours))
        close(outcome.loss, a.loss, "losses")
        for mine, theirs in ((gradient, b), (outcome.stats, a.stats)):
            named = {k.replace(".norm.0.", ".norm."): v for k, v in theirs.items()}
            assert named.keys() == mine.keys()
            for k, v in mine.items():
                close(v, named[k], k)


def test_a_predictor_stays_what_it_is_when_its_steps_are_made_again() -> None:
    """On flat's way back the loss of each step is called once more."""
    learner = MAML(body("support", 3), way=2, inner_lr=RATE, steps=4)
    learner.gradient = METHODS["flat"]
    task = make_task()
    predictor = learner.learn(task.support)
    before = predictor(task.query.x)
    moments = {k: v.clone() for k, v in learner.stats(predictor.moments).items()}
    before.square().sum().backward()
    assert torch.equal(predictor(task.query.x), before)
    after = learner.stats(predictor.moments)
    assert len(after) == 6
    assert all(torch.equal(v, moments[k]) for k, v in after.items())


@pytest.mark.parametrize("norm", ["support", "batch"])
def test_reptile_takes_each_mini_batch_with_its_steps_layer(norm: str) -> None:
    learner = Reptile(body(norm, 3), way=2, inner_lr=0.02, steps=4, inner_batch=5)
    rows = torch.stack([torch.randperm(12)[:5] for _ in range(4)])
    task = make_task()
    x, y = torch.cat([task.support.x, task.query.x]), torch.cat([task.support.y, task.query.y])
    net = ByHand(learner, 3)
    w = {k: v.detach().clone().requires_grad_() for k, v in net.start.items()}
    optimizer = torch.optim.Adam(w.values(), 0.02, betas=(0.0, 0.999))
    for step, mini in enumerate(rows):
        optimizer.zero_grad(set_to_none=False)
        loss = F.cross_entropy(net(w, x[mini], step), y[mini])
        loss.backward()
        for v in w.values():
            v.grad = torch.zeros_like(v) if v.grad is None else v.grad  # an optimiser's step for all
        optimizer.step()
    outcome = learner(Task(task.support, task.query, extra={"rows": rows}))
    grads = torch.autograd.grad(outcome.loss, learner.net.parameters())
    close(outcome.metrics["loss"], loss.detach(), "loss")
    for (k, v), g in zip(w.items(), grads, strict=True):
        torch.testing.assert_close(g, (net.start[k] - v).detach(), rtol=1e-7, atol=1e-8, msg=k)
    for s in range(3):  # the last one as the last mini-batch showed
        close(outcome.stats[f"net.body.1.{s}.mean"], net.noted[s][0].detach(), f"mean of {s}")
        close(outcome.stats[f"net.body.1.{s}.var"], net.noted[s][1].detach(), f"variance of {s}")


# -- runs -------------------------------------------------------------------------------------------------


def small(norm: str = "running") -> MAML:
    torch.manual_seed(5)
    net = per_step(conv4(4, size=16, blocks=2, norm=norm), 3)
    return MAML(net, way=3, inner_lr=0.1, steps=3, inner_params="filters")


def test_a_run_learns_every_steps_layer(blobs: ClassDataset) -> None:
    learner, tasks = small(), ClassTasks(blobs, 3, 1, query=3, seed=1)
    before = {k: v.clone() for k, v in learner.state_dict().items()}
    meta_train(learner, tasks, iterations=1, meta_batch=2, strategy="loop")
    for k, v in learner.state_dict().items():
        if ".norm." in k:
            assert (v != before[k]).all(), k
    fresh = small()
    outcome, _ = estimate(fresh.train(), tasks.batch(np.arange(2)).to(torch.float64), "loop")
    assert len(outcome.stats) == 2 * 3 * 2
    for k, v in outcome.stats.items():
        close(learner.state_dict()[k], 0.95 * before[k] + 0.05 * v.mean(0), k)


def test_a_run_goes_on_as_if_it_had_not_stopped(blobs: ClassDataset, tmp_path: Path) -> None:
    options: dict[str, Any] = {"meta_batch": 2, "strategy": "vmap", "schedule": "constant"}
    tasks = ClassTasks(blobs, 3, 1, query=3, seed=1)
    whole, first, second, copied = small(), small(), small(), small()
    meta_train(whole, tasks, iterations=4, **options)
    meta_train(first, tasks, iterations=2, run=tmp_path / "run", **options)
    meta_train(second, tasks, iterations=4, run=tmp_path / "run", **options)
    copied.load_state_dict(whole.state_dict())
    x, y, query = torch.rand(6, 1, 16, 16), [0, 0, 1, 1, 2, 2], torch.rand(4, 1, 16, 16)
    wanted = whole.adapt(x, y)(query)
    assert not torch.equal(first.adapt(x, y)(query), wanted)
    assert torch.equal(second.adapt(x, y)(query), wanted)
    assert torch.equal(copied.adapt(x, y)(query), wanted)


def test_a_net_of_torchs_layers(agrees: Callable[..., None], batch: Task) -> None:
    torch_net = nn.Sequential(nn.Conv2d(1, 3, 3, stride=4), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten())
    torch_net.features = 3 * 4 * 4
    net = scattered(per_step(convert_batch_norm(torch_net), 2))
    agrees(MAML(net, way=3, inner_lr=0.1, steps=2), batch)


def test_a_learner_without_steps_uses_the_last_layer(batch: Task) -> None:
    net = scattered(per_step(conv4(4, size=16, blocks=2), 3))
    outcome, gradient = estimate(ProtoNet(net).double(), batch)
    assert {k.split(".")[-2] for k in outcome.stats} == {"2"}
    trained = {k.split(".")[-2] for k, g in gradient.items() if ".norm." in k and g.abs().sum() > 0}
    assert trained == {"2"}
