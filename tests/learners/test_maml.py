from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from quickstudy.errors import DataError, UserError
from quickstudy.inner import Method, estimate, flat, implicit, map_tasks, truncated
from quickstudy.learners import FOMAML, MAML, Learner, ProtoMAML
from quickstudy.nets import convert_batch_norm, mlp, resnet
from quickstudy.tasks import Sinusoids, Support, Task

pytestmark = pytest.mark.usefixtures("float64")


# -- the meta-gradient ------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("inner_params", ["all", "head", "body", "filters", r"^body\.0\.|bias$"])
def test_meta_gradient_by_finite_differences(
    steps: int, inner_params: str, smooth: type[nn.Module], batch: Task, agrees: Callable[..., None]
) -> None:
    agrees(MAML(smooth(), way=3, inner_lr=0.3, steps=steps, inner_params=inner_params), batch)


@pytest.mark.parametrize("norm", ["batch", "running"])
def test_meta_gradient_under_other_statistics(
    norm: str, smooth: Callable[[str], nn.Module], batch: Task, agrees: Callable[..., None]
) -> None:
    agrees(MAML(smooth(norm), way=3, inner_lr=0.3, steps=2), batch)


@pytest.mark.parametrize("norm", ["support", "batch", "layer"])
def test_meta_gradient_of_conv4(
    norm: str, make: Callable[..., Learner], batch: Task, agrees: Callable[..., None]
) -> None:
    """ReLU and max pooling have kinks; a step of 1e-7 meets few enough to agree to three digits."""
    agrees(make("maml", norm, steps=2, inner_lr=0.1), batch, eps=1e-7, rtol=1e-3)


def test_meta_gradient_of_a_regression(agrees: Callable[..., None]) -> None:
    body = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())
    body.features = 8
    tasks = Sinusoids(shot=5, query=5).batch(np.arange(3)).to(torch.float64)
    agrees(MAML(body, way=1, inner_lr=0.05, steps=5), tasks)


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch's word for attention under vmap
def test_meta_gradient_of_attention(agrees: Callable[..., None]) -> None:
    encoder = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, activation=torch.tanh, batch_first=True)
    body = nn.Sequential(nn.Linear(1, 8), nn.Unflatten(1, (2, 4)), encoder, nn.Flatten())
    body.features = 8
    learner = MAML(body, way=1, inner_lr=0.05, steps=2)
    tasks = Sinusoids(shot=5, query=5).batch(np.arange(2)).to(torch.float64)
    agrees(learner, tasks)
    (_, loop), (_, vmap) = (estimate(learner, tasks, s) for s in ("loop", "vmap"))
    torch.testing.assert_close(vmap, loop, rtol=1e-10, atol=1e-12)


def adapted(learner: MAML, task: Task) -> nn.Module:
    """The net after the inner loop, by torch's own optimiser on a copy; for nets that see one example."""
    net = copy.deepcopy(learner.net)
    optimizer = torch.optim.SGD(net.parameters(), learner.inner_lr)
    for _ in range(learner.steps):
        optimizer.zero_grad()
        F.cross_entropy(net(task.support.x), task.support.y).backward()
        optimizer.step()
    return net


def test_the_inner_loop_is_gradient_descent(make: Callable[..., MAML], batch: Task) -> None:
    learner = make("maml", "layer", steps=4, inner_lr=0.02)
    for task in batch.unbatch():
        predictor = learner.adapt(task.support.x, task.support.y)
        wanted = adapted(learner, task)(task.query.x)
        torch.testing.assert_close(predictor(task.query.x), wanted.detach(), rtol=1e-10, atol=1e-10)
        assert len(predictor.losses) == 4
        assert predictor.losses[-1] < predictor.losses[0]
        outcome = learner(task)
        torch.testing.assert_close(outcome.loss, F.cross_entropy(wanted, task.query.y))
        accuracy = (wanted.argmax(-1) == task.query.y).double().mean()
        torch.testing.assert_close(outcome.metrics["accuracy"], accuracy)


def test_first_order_is_the_query_gradient_at_the_adapted_weights(
    make: Callable[..., FOMAML], batch: Task
) -> None:
    learner = make("fomaml", "layer", steps=3, inner_lr=0.2)
    _, gradient = estimate(learner, batch)
    total = {f"net.{k}": torch.zeros_like(p) for k, p in learner.net.named_parameters()}
    for task in batch.unbatch():
        net = adapted(learner, task)
        net.zero_grad()
        F.cross_entropy(net(task.query.x), task.query.y).backward()
        for k, p in net.named_parameters():
            total[f"net.{k}"] += p.grad / 3
    for k, wanted in total.items():
        torch.testing.assert_close(gradient[k], wanted, rtol=1e-9, atol=1e-11)

    second = make("maml", "layer", steps=3, inner_lr=0.2)
    second.load_state_dict(learner.state_dict())
    _, exact = estimate(second, batch)
    difference = sum(float((exact[k] - gradient[k]).square().sum()) for k in exact)
    assert difference > 1e-6


# -- what adapts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inner_params", ["all", "head", "body", "filters"])
def test_only_the_named_parameters_move(inner_params: str, make: Callable[..., MAML], batch: Task) -> None:
    learner = make("maml", inner_params=inner_params, steps=1)
    task = next(batch.unbatch())
    before = learner.weights(learner.net)
    after, _, _ = learner.descend(task.support)
    moved = {k for k in before if not torch.equal(before[k], after[k])}
    expected = {
        "all": {k for k, _ in learner.net.named_parameters()},
        "head": {"head.weight", "head.bias"},
        "body": {k for k, _ in learner.net.named_parameters() if k.startswith("body.")},
        "filters": {"head.weight", "head.bias"}
        | {f"body.{i}.conv.{p}" for i in (0, 1) for p in ("weight", "bias")},
    }[inner_params]
    # A bias before batch normalisation has no influence, whatever moves.
    assert moved - {"body.0.conv.bias", "body.1.conv.bias"} == expected - {
        "body.0.conv.bias",
        "body.1.conv.bias",
    }


@pytest.mark.parametrize("norm", ["support", "group"])
def test_filters_are_told_from_norms_by_kind_not_by_name(norm: str) -> None:
    """In an MLP the norms are numbered, and in a residual net one is called skip_norm."""
    plain = MAML(mlp(4, (8, 8), norm=norm), way=2, inner_params="filters")
    names = {k for k, _ in plain.net.named_parameters()}
    assert names - plain.inner_names() == {f"body.{i}.{p}" for i in (2, 5) for p in ("weight", "bias")}
    residual = MAML(resnet((8,), norm=norm), way=2, inner_params="filters")
    names = {k for k, _ in residual.net.named_parameters()}
    assert {k for k in residual.inner_names() if k.startswith("body")} == {
        *(f"body.0.convs.{i}.weight" for i in range(3)),
        "body.0.skip.weight",
    }


def test_a_function_says_which_parameters_move(make: Callable[..., MAML], batch: Task) -> None:
    """The names it is asked for are those a pattern sees; frozen ones never move, whatever it says."""
    asked: list[str] = []

    def biases(name: str) -> bool:
        asked.append(name)
        return name.endswith("bias")

    by_function, by_pattern = (make("maml", "group", inner_params=p, steps=2) for p in (biases, "bias$"))
    by_pattern.load_state_dict(by_function.state_dict())
    assert set(asked) == {k for k, _ in by_function.net.named_parameters()}
    assert by_function.inner_names() == by_pattern.inner_names()
    (ours, gradient), (theirs, wanted) = (estimate(learner, batch) for learner in (by_function, by_pattern))
    assert torch.equal(ours.loss, theirs.loss)
    assert all(torch.equal(gradient[k], wanted[k]) for k in wanted)
    by_function.net.head.requires_grad_(False)
    assert all(k.startswith("body.") for k in by_function.inner_names())


def test_errors_of_options() -> None:
    with pytest.raises(UserError, match=r"no trainable parameter is named by inner_params=<function"):
        MAML(mlp(2), way=2, inner_params=lambda name: False)
    with pytest.raises(UserError, match=r"must be a word, a pattern or a function of names, not \['head'\]"):
        MAML(mlp(2), way=2, inner_params=["head"])
    with pytest.raises(UserError, match="no trainable parameter is named by inner_params='tail'"):
        MAML(mlp(2), way=2, inner_params="tail")
    with pytest.raises(UserError, match="no regular expression"):
        MAML(mlp(2), way=2, inner_params="(")
    for option in ("steps", "test_steps"):
        with pytest.raises(UserError, match=f"^{option} must be at least 0 and finite, not -1"):
            MAML(mlp(2), way=2, **{option: -1})
    with pytest.raises(UserError, match="Identity does not say how many features"):
        MAML(nn.Identity(), way=2)


# -- ways -------------------------------------------------------------------------------------------------


def test_a_head_answers_fewer_ways_and_says_who_answers_more(make: Callable[..., MAML]) -> None:
    learner, x = make("maml", way=4), torch.rand(10, 1, 16, 16)
    assert learner.adapt(x[:6], torch.arange(6) % 3)(x).shape == (10, 3)
    with pytest.raises(UserError, match="answers at most 4 ways, not 5; proto-maml, protonet"):
        learner.adapt(x, torch.arange(10) % 5)


def test_fewer_ways_is_the_same_as_a_smaller_head(make: Callable[..., MAML]) -> None:
    big, x, y = make("maml", way=5, steps=3), torch.rand(6, 1, 16, 16), torch.arange(6) % 3
    small = make("maml", way=3, steps=3)
    state = big.state_dict()
    state["net.head.weight"], state["net.head.bias"] = (
        state["net.head.weight"][:3],
        state["net.head.bias"][:3],
    )
    small.load_state_dict(state)
    torch.testing.assert_close(big.adapt(x, y)(x), small.adapt(x, y)(x))


def test_a_regression_answers_values_and_refuses_other_shapes() -> None:
    learner, x = MAML(mlp(2), way=3, inner_lr=0.01, steps=2), torch.randn(5, 2)
    predictor = learner.adapt(x, torch.randn(5, 3))
    assert predictor.way is None
    assert predictor(torch.randn(7, 2)).shape == (7, 3)
    with pytest.raises(DataError, match=r"3 outputs a point, but targets of shape \(5, 1\)"):
        learner.adapt(x, torch.randn(5))


def test_zero_steps_answer_with_the_initialisation(make: Callable[..., MAML]) -> None:
    learner, x = make("maml", "layer", steps=0), torch.rand(6, 1, 16, 16)
    assert torch.equal(learner.adapt(x, torch.arange(6) % 3)(x), learner.net(x).detach())


def test_settings_can_be_set(make: Callable[..., MAML]) -> None:
    learner = make("maml", steps=2, inner_lr=0.4)
    assert learner.candidates()[0] == {"test_steps": None, "inner_lr": 0.4}  # as trained
    assert len(learner.candidates()) == 6
    for setting in learner.candidates():
        assert set(setting) <= set(vars(learner))


def test_steps_in_use_may_differ_from_those_of_training(make: Callable[..., MAML], batch: Task) -> None:
    learner, task = make("maml", steps=2, test_steps=5), next(batch.unbatch())
    assert len(learner.learn(task.support).losses) == 2
    assert len(learner.adapt(task.support).losses) == 5
    assert len(learner.eval().learn(task.support).losses) == 5
    learner.test_steps = None
    assert len(learner.adapt(task.support).losses) == 2


def test_only_trainable_parameters_move(batch: Task) -> None:
    """Torch's layers without scale and shift stay without; so does what a user froze, also later."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(256, 4), nn.BatchNorm1d(4, affine=False), nn.ReLU())
    body.features = 4
    for learner in (MAML(convert_batch_norm(body), way=3, steps=2), ProtoMAML(body, steps=2)):
        learner.embedding[1].bias.requires_grad_(False)
        support = next(batch.unbatch()).support
        start, (end, _, _) = learner.start(support), learner.descend(support)
        moved = {k for k in start if not torch.equal(start[k], end[k])}
        assert moved == {"body.1.weight", "head.weight", "head.bias"}


# -- where only the head moves ----------------------------------------------------------------------------


class Counted(nn.Module):
    """A body that counts its calls, and has a parameter that changes nothing."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.inside, self.unused, self.calls = body, nn.Parameter(torch.ones(1)), 0
        self.features, self.norm = body.features, body.norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.inside(x)


@pytest.mark.parametrize("kind", [MAML, FOMAML])
@pytest.mark.parametrize("norm", ["support", "batch", "running"])
@pytest.mark.parametrize("strategy", ["loop", "vmap"])
def test_a_body_that_does_not_move_is_computed_once(
    kind: type[MAML], norm: str, strategy: str, smooth: Callable[[str], nn.Module], batch: Task
) -> None:
    head = kind(Counted(smooth(norm)), way=3, steps=4, inner_lr=0.3, inner_params="head")
    general = kind(Counted(smooth(norm)), way=3, steps=4, inner_lr=0.3, inner_params="^head|unused")
    general.load_state_dict(head.state_dict())
    (ours, gradient), (theirs, wanted) = (estimate(m, batch, strategy) for m in (head, general))
    # By vmap one task alone, to see what memory it takes, and all at once.
    tasks = 2 if strategy == "vmap" else len(batch.support.x)
    assert head.net.body.calls == 2 * tasks  # the support set and the queries
    assert general.net.body.calls == 6 * tasks
    close = functools.partial(torch.testing.assert_close, rtol=1e-10, atol=1e-12)
    close(ours.loss, theirs.loss)
    close(ours.stats, theirs.stats)
    close(gradient, wanted)
    for task in batch.unbatch():
        close(head.adapt(task.support)(task.query.x), general.adapt(task.support)(task.query.x))


@pytest.mark.parametrize("norm", ["support", "batch", "running"])
@pytest.mark.parametrize("strategy", ["loop", "vmap"])
def test_the_last_support_pass_has_a_graph_only_where_queries_need_it(
    norm: str, strategy: str, smooth: Callable[[str], nn.Module], batch: Task
) -> None:
    modes = []
    learner = MAML(smooth(norm), way=3, steps=1)
    learner.net.body.register_forward_hook(lambda *_: modes.append(torch.is_grad_enabled()))
    estimate(learner, batch, strategy)
    assert modes[:3] == [True, norm == "support", True]  # the step, the moments, the queries


# -- what a user may give -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "exact"),
    [(truncated(2), False), (implicit(4.0), False), (functools.partial(flat, keep=1), True)],
)
def test_a_method_may_be_a_function(method: Method, exact: bool, batch: Task) -> None:
    learner = MAML(mlp(256, (3,)), way=3, inner_lr=0.1, steps=3, gradient=method)
    wanted = MAML(mlp(256, (3,)), way=3, inner_lr=0.1, steps=3)
    wanted.load_state_dict(learner.state_dict())
    found, right = (estimate(one.train(), batch, "loop")[1] for one in (learner, wanted))
    assert all(torch.allclose(found[k], right[k], rtol=1e-9, atol=1e-12) for k in right) == exact


def test_tied_weights_go_by_either_name() -> None:
    body = mlp(4, (4, 4))
    first, second = (module for module in body if isinstance(module, nn.Linear))
    second.weight = first.weight
    names = {module: name for name, module in body.named_modules()}
    learner = MAML(body, way=2, inner_params=rf"{names[second]}\.weight")
    assert learner.inner_names() == {f"body.{names[first]}.weight"}


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("strategy", ["loop", "threads"])
def test_a_net_that_writes_to_a_buffer_is_refused(strategy: Any, in_place: bool, batch: Task) -> None:
    class Averaging(nn.Module):
        features = 256

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(256))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen = 0.9 * self.seen + 0.1 * x.flatten(1).mean(0)
            if in_place:
                self.seen.copy_(seen)
            else:
                self.seen = seen
            return x.flatten(1) - self.seen

    learner = MAML(Averaging(), way=3, steps=1).train()
    with pytest.raises(UserError, match="the net writes to its buffer 'seen' while it computes"):
        estimate(learner, batch, strategy)
    assert not learner.net.body._forward_hooks


@pytest.mark.parametrize("how", [estimate, lambda *a: map_tasks(lambda m, t: {"z": t.support.x}, *a)])
def test_an_unknown_strategy_is_refused(how: Callable[..., Any], batch: Task) -> None:
    with pytest.raises(UserError, match="unknown strategy 'serial'"):
        how(MAML(mlp(256, (3,)), way=3), batch, "serial")


def test_truncated_takes_no_negative_number() -> None:
    with pytest.raises(UserError, match="at least 0 and finite, not -1"):
        truncated(-1)


# -- unequal shots ----------------------------------------------------------------------------------------


def test_an_inner_step_follows_the_mean_over_classes() -> None:
    """By hand: the gradient of the mean, over classes, of the mean cross-entropy of a class's examples."""
    torch.manual_seed(0)
    learner = MAML(mlp(3, (4,)), way=3, inner_lr=0.5, steps=1)
    x, y = torch.randn(7, 3), torch.tensor([0, 0, 0, 0, 1, 1, 2])
    net = copy.deepcopy(learner.net)
    torch.stack([F.cross_entropy(net(x[y == c]), y[y == c]) for c in range(3)]).mean().backward()
    with torch.no_grad():
        for p in net.parameters():
            p -= 0.5 * p.grad
    query = torch.randn(5, 3)
    torch.testing.assert_close(learner.adapt(x, y)(query), net(query).detach())


@pytest.mark.parametrize("name", [MAML, ProtoMAML])
def test_an_example_given_twice_says_no_more_than_once(name: type[Learner]) -> None:
    torch.manual_seed(0)
    learner = name(mlp(3, (4,)), **({"way": 3} if name is MAML else {}), inner_lr=0.5, steps=3)
    x, y = torch.randn(3, 3), torch.arange(3)
    often = torch.tensor([0, 0, 0, 0, 0, 1, 1, 2])
    query = torch.randn(5, 3)
    torch.testing.assert_close(learner.adapt(x[often], y[often])(query), learner.adapt(x, y)(query))


def test_classes_that_are_stated_but_not_shown_count_nothing() -> None:
    torch.manual_seed(0)
    learner = MAML(mlp(3, (4,)), way=3, inner_lr=0.5, steps=2)
    x, y = torch.randn(4, 3), torch.tensor([0, 1, 1, 0])
    predictor = learner.adapt(Support(x, y, way=3))
    assert torch.isfinite(predictor(x)).all()
    torch.testing.assert_close(predictor.losses[0], F.cross_entropy(learner.net(x), y).detach())
