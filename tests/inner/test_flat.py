"""Flat memory is the unrolled loop's exact meta-gradient, whatever is adapted, by whatever rule."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import UserError
from quickstudy.inner import (
    InnerProblem,
    Method,
    Rule,
    adam,
    by_step,
    chain,
    clip_by_norm,
    clip_by_value,
    cosine,
    estimate,
    flat,
    implicit,
    momentum,
    sgd,
    unrolled,
    weight_decay,
)
from quickstudy.inner.memory import held_by_graphs
from quickstudy.inner.problem import take_step
from quickstudy.inner.rules import Params
from quickstudy.learners import MAML, build
from quickstudy.nets import conv4
from quickstudy.tasks import ClassTasks

pytestmark = pytest.mark.usefixtures("float64")


def close(ours: Any, theirs: Any, tolerance: float = 1e-9) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


class Meta(nn.Module):
    """A linear layer that is adapted, features that are not, rates by step, a start for the velocity."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.w, self.b = nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(3))
        self.body = nn.Linear(5, 4)
        self.rates = nn.Parameter(torch.rand(max(1, steps)) * 0.2)
        self.velocity = nn.Parameter(torch.randn(4, 3))
        self.steps = steps

    def forward(self, x: Tensor, y: Tensor, make: Callable[[Any], Rule], method: Method) -> Tensor:
        z = torch.tanh(self.body(x))  # made once, and used by every step

        def loss(p: Params, step: int) -> Tensor:
            scale = self.rates[step] if step else 1.0
            return F.cross_entropy(scale * (z @ p["w"]) + p["b"], y) + 0.01 * p["w"].pow(4).sum()

        end = method(InnerProblem({"w": self.w, "b": self.b}, loss, make(self), self.steps))
        with torch.no_grad():
            assert len(end.losses) == self.steps
        return end.params["w"].pow(3).sum() + end.params["b"].sin().sum()


def velocity_learned(meta: Meta) -> Rule:
    rule = momentum(0.1)
    return rule._replace(init=lambda p: {**rule.init(p), "w": meta.velocity})


RULES: dict[str, Callable[[Any], Rule]] = {
    "sgd": lambda meta: sgd(0.3),
    "one learned rate": lambda meta: sgd(meta.rates[0]),
    "a learned rate for each parameter": lambda meta: sgd({"w": meta.velocity.exp(), "b": meta.rates[0]}),
    "momentum": lambda meta: momentum(meta.rates[0], 0.8),
    "momentum, learned start": velocity_learned,
    "adam": lambda meta: adam(meta.rates[0]),
    "a schedule": lambda meta: momentum(cosine(meta.rates[0], 0.01, 4), nesterov=True),
    "rates by layer and step": lambda meta: adam(by_step({"w": meta.rates, "": 0.5 * meta.rates})),
    "a chain": lambda meta: chain(
        clip_by_value(1.0), clip_by_norm(0.3), weight_decay({"": meta.velocity.mean()}), sgd(meta.rates[0])
    ),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("steps", "keep"), [(0, 0), (1, 0), (1, 2), (5, 0), (5, 1), (5, 2), (5, 9), (3, None), (5, None)]
)
@pytest.mark.parametrize("mapped", [False, True])
def test_it_is_the_unrolled_meta_gradient(rule: str, steps: int, keep: int | None, mapped: bool) -> None:
    """With a number of graphs, and with a budget for none, where the first step's is counted and dropped."""
    meta, make = Meta(steps), RULES[rule]
    x, y = torch.randn(4, 6, 5), torch.randint(3, (4, 6))
    params = list(meta.parameters())

    def outer(method: Method) -> tuple[Tensor, ...]:
        one = partial(meta, make=make, method=method)
        value = torch.func.vmap(one)(x, y).mean() if mapped else one(x[0], y[0])
        return value, *torch.autograd.grad(value, params, materialize_grads=True)

    ours, theirs = outer(partial(flat, keep=keep, budget=0)), outer(unrolled)
    close(ours, theirs)
    if steps > 1:  # by the first of Adam it goes everywhere as far
        assert all(g.norm() > 1e-6 for g in theirs[5:])  # the body's gradient goes through the steps


class Recurrent(nn.Module):
    """A GRU cell over a sequence, its head tied to its input layer."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.into = nn.GRUCell(4, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 6)
        for t in range(3):
            h = self.cell(x[:, t : t + 4], h)
        return self.into(h)[:, :3]


class Attentive(nn.Module):
    """Transformer layers of which two share a weight, with an embedding that is the output layer's too."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 8, bias=False)
        self.layer, self.again = (
            nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True) for _ in range(2)
        )
        self.again.linear1.weight = self.layer.linear1.weight

    def forward(self, x: Tensor) -> Tensor:
        z = self.again(self.layer(F.linear(x.unflatten(1, (2, 3)), self.embed.weight)))
        return F.linear(z.mean(1), self.embed.weight.T)


def convolved() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)
    )


def half_frozen() -> nn.Module:
    net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    net[0].requires_grad_(False)
    return net


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # torch maps these in a loop
@pytest.mark.parametrize("make", [Recurrent, Attentive, convolved, half_frozen])
@pytest.mark.parametrize("mapped", [False, True])
def test_any_module(make: Callable[[], nn.Module], mapped: bool) -> None:
    net = make()
    x, y = torch.randn(2, 5, 6), torch.randint(3, (2, 5))
    params = {k: p for k, p in net.named_parameters() if p.requires_grad}

    def outer(method: Method) -> tuple[Tensor, ...]:
        def one(x: Tensor, y: Tensor) -> Tensor:
            def loss(p: Params, step: int) -> Tensor:
                return F.cross_entropy(torch.func.functional_call(net, p, (x,)), y)

            end = method(InnerProblem(params, loss, adam(0.05), 4)).params
            return F.cross_entropy(torch.func.functional_call(net, end, (x.flip(0),)), y)

        value = torch.func.vmap(one)(x, y).sum() if mapped else one(x[0], y[0])
        return torch.autograd.grad(value, list(params.values()), materialize_grads=True)

    close(outer(partial(flat, keep=1)), outer(unrolled))


@pytest.mark.parametrize("strategy", ["loop", "vmap"])
@pytest.mark.parametrize("name", ["maml", "anil", "proto-maml"])
@pytest.mark.parametrize("norm", ["support", "batch", "group"])
def test_learners_that_descend(name: str, norm: str, strategy: Any, blobs: ClassDataset) -> None:
    learner = build(name, conv4(4, size=16, blocks=2, norm=norm), way=3, classes=8, settings={"steps": 4})
    learner.double()
    batch = ClassTasks(blobs, 3, 2, query=2).batch(np.arange(3)).to(torch.float64)
    found = []
    for method in (unrolled, partial(flat, keep=1)):
        learner.gradient = method
        outcome, gradient = estimate(learner, batch, strategy)
        found.append([outcome.loss, *outcome.stats.values(), *gradient.values()])
    close(*found)


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("kept", [{"keep": 1}, {"budget": 0}, {}])
def test_chance_is_replayed(kept: dict[str, int], mapped: bool) -> None:
    """A step that is made again drops the same units, and leaves the stream of chance where it was."""
    w, x = torch.randn(6, 2, requires_grad=True), torch.randn(3, 4, 6)

    def outer(method: Method) -> tuple[Tensor, ...]:
        torch.manual_seed(3)

        def one(x: Tensor) -> Tensor:
            def loss(p: Params, step: int) -> Tensor:
                return (F.dropout(x, 0.5) @ p["w"]).square().mean()

            return method(InnerProblem({"w": w}, loss, sgd(0.3), 4)).params["w"].pow(3).sum()

        value = torch.func.vmap(one, randomness="different")(x).sum() if mapped else one(x[0])
        return value, *torch.autograd.grad(value, w), torch.rand(3)

    close(outer(partial(flat, **kept)), outer(unrolled))


class Hidden(torch.autograd.Function):
    """Twice its input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 2 * grad


def test_what_it_cannot_see_is_refused() -> None:
    w, other = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    kept = [other]

    def keeps(p: Params, step: int) -> Tensor:
        kept.append(kept[-1] * p["w"])
        return kept[-1].sum()

    with pytest.raises(UserError, match="keeps tensors from step to step"):
        flat(InnerProblem({"w": w}, keeps, sgd(0.1), 4), keep=0)

    def hides(p: Params, step: int, most: int) -> Tensor:
        seen = Hidden.apply(other) if step <= most else torch.ones(2)
        return (seen * p["w"] ** 2).sum()

    for method, most in ((partial(flat, keep=0), 3), (partial(flat, keep=0), 0), (implicit(1.0), 3)):
        end = method(InnerProblem({"w": w}, partial(hides, most=most), sgd(0.1), 4)).params["w"]
        with pytest.raises(UserError, match=r"cannot see how the support loss uses a tensor of shape \(2,\)"):
            torch.autograd.grad(end.sum(), w)


class Both(NamedTuple):
    """Two tensors that go together."""

    a: Tensor
    b: Tensor


@pytest.mark.parametrize("method", [partial(flat, keep=0), unrolled])
def test_tensors_in_a_named_tuple_are_seen(method: Method) -> None:
    w, learned = torch.ones((), requires_grad=True), Both(torch.rand(()), torch.rand(()))
    for v in learned:
        v.requires_grad_()
    problem = InnerProblem(
        {"w": w}, lambda p, step: (p["w"] - torch.stack(learned)).square().sum(), sgd(0.1), 4
    )
    found = torch.autograd.grad(method(problem).params["w"], [w, *learned])
    left = (1 - 2 * 2 * 0.1) ** 4  # of w; each of the others has half of the rest
    close(found, [torch.tensor(v) for v in (left, (1 - left) / 2, (1 - left) / 2)])


def test_a_map_within_a_map_is_refused() -> None:
    w = torch.ones(2, requires_grad=True)

    def one(x: Tensor) -> Tensor:
        problem = InnerProblem({"w": w}, lambda p, step: (x * p["w"] ** 2).sum(), sgd(0.1), 4)
        return flat(problem).params["w"].sum()

    with pytest.raises(UserError, match="one map over tasks, in no other transform"):
        torch.func.vmap(torch.func.vmap(one))(torch.rand(2, 3, 2))


class Saved:
    """A tensor that a graph keeps for the way back; counted while it lives."""

    alive = peak = 0

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()
        Saved.alive += 1
        Saved.peak = max(Saved.peak, Saved.alive)

    def __del__(self) -> None:
        Saved.alive -= 1


@contextmanager
def counting() -> Iterator[None]:
    gc.collect()
    Saved.alive = Saved.peak = 0
    with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
        yield


def test_no_more_graphs_are_kept_than_asked_for(blobs: ClassDataset) -> None:
    batch = ClassTasks(blobs, 3, 2, query=2).batch(np.arange(1)).to(torch.float64)

    def peak(method: Method, steps: int) -> int:
        learner = MAML(conv4(4, size=16, blocks=2), way=3, steps=steps)
        learner.gradient = method
        with counting():
            estimate(learner, batch)
        return Saved.peak

    for keep in (0, 1):
        few, many = (peak(partial(flat, keep=keep), steps) for steps in (3, 12))
        assert many <= few + 2
    assert peak(unrolled, 12) > 2 * peak(unrolled, 3)


def test_without_gradients_it_is_the_plain_loop() -> None:
    w = torch.ones(2, requires_grad=True)
    problem = InnerProblem({"w": w}, lambda p, step: p["w"].pow(4).sum(), sgd(0.1), 5)
    with torch.no_grad():
        assert torch.equal(flat(problem).params["w"], unrolled(problem).params["w"])


def test_nothing_is_computed_twice_that_fits_the_budget() -> None:
    """The way there takes each step once; the way back once more those whose graphs no budget is for."""
    w = torch.rand(1000, dtype=torch.float64, requires_grad=True)
    taken = []

    def loss(p: Params, step: int) -> Tensor:
        taken.append(step)
        return p["w"].tanh().square().sum()

    problem = InnerProblem({"w": w}, loss, sgd(0.01), 9)
    with held_by_graphs([w]) as held:
        after = take_step(problem, {"w": w}, {}, 0, create_graph=True)
    size = held.now
    del after
    assert 8000 <= size <= 20 * 8000
    wanted = torch.autograd.grad(unrolled(problem).params["w"].sum(), w)[0]
    for room, keep in ((0, 2), (1, 2), (2.5, 2), (3, 3), (5.1, 5), (8, 8), (9, 9), (100, 9)):
        taken.clear()
        end = flat(problem, budget=int(room * size)).params["w"]
        assert taken == list(range(9))
        taken.clear()
        torch.testing.assert_close(torch.autograd.grad(end.sum(), w)[0], wanted, rtol=1e-12, atol=0)
        assert taken == list(reversed(range(9 - keep)))


@pytest.mark.parametrize("budget", [0, 10**9])
def test_no_graph_of_the_first_step_is_left(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where it was counted and dropped, nor where it was gone back through."""
    w = torch.rand(1000, requires_grad=True)
    problem = InnerProblem({"w": w}, lambda p, step: p["w"].tanh().square().sum(), momentum(0.01), 3)
    counted = []

    @contextmanager
    def spied(there: Any) -> Iterator[Any]:
        with held_by_graphs(there) as held:
            counted.append(held)
            yield held

    # By name the package has the function, which hides its module.
    monkeypatch.setattr(sys.modules[flat.__module__], "held_by_graphs", spied)
    end = flat(problem, budget=budget).params["w"]
    (held,) = counted
    assert held.most > 0
    assert (held.now == 0) == (budget == 0)
    torch.autograd.grad(end.sum(), w)
    assert held.now == 0


def test_it_does_not_load_what_it_does_not_need(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given adjoints, `torch.autograd.grad` loads sympy: more memory than the graphs of most tasks."""
    monkeypatch.setitem(sys.modules, "torch.fx.experimental.symbolic_shapes", None)
    w = torch.rand(3, requires_grad=True)
    problem = InnerProblem({"w": w}, lambda p, step: p["w"].pow(4).sum(), adam(0.1), 4)
    torch.autograd.grad(flat(problem, keep=1).params["w"].sum(), w)


def test_a_loss_that_takes_a_gradient_itself() -> None:
    """torch.func.grad lets nobody count what its graph holds: two graphs are kept then."""
    w, x = torch.randn(3, requires_grad=True), torch.randn(3)

    def slope(w: Tensor) -> Tensor:
        return torch.func.grad(lambda x: torch.sin(w * x).sum())(x)

    def outer(method: Method) -> Tensor:
        end = method(InnerProblem({"w": w}, lambda p, step: slope(p["w"]).square().sum(), sgd(0.1), 5))
        return torch.autograd.grad(end.params["w"].square().sum(), w)[0]

    torch.testing.assert_close(outer(flat), outer(unrolled), rtol=1e-9, atol=1e-12)
