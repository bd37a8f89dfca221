from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from quickstudy.errors import UserError
from quickstudy.learners import MAML, MetaSGD
from quickstudy.learners.rates import Rates
from quickstudy.learners.registry import options
from quickstudy.nets import mlp
from quickstudy.tasks import Task

pytestmark = pytest.mark.usefixtures("float64")


def with_rates_of_all_kinds(learner: MetaSGD) -> MetaSGD:
    """Each rate another one, some below zero."""
    with torch.no_grad():
        for rate in learner.rates.parameters():
            rate.normal_(0.1, 0.1)
    return learner


@pytest.mark.parametrize("steps", [1, 4])
def test_meta_gradient_of_start_and_rates_by_finite_differences(
    steps: int, smooth: type[nn.Module], batch: Task, agrees: Callable[..., None]
) -> None:
    agrees(with_rates_of_all_kinds(MetaSGD(smooth(), way=3, steps=steps)), batch)


def test_the_inner_loop_by_hand(make: Callable[..., MetaSGD], batch: Task) -> None:
    learner = with_rates_of_all_kinds(make("meta-sgd", "layer", steps=3))
    rates = {k.removeprefix("rates.").replace("/", "."): r for k, r in learner.named_parameters() if "/" in k}
    for task in batch.unbatch():
        weights = {k: p.detach().clone().requires_grad_() for k, p in learner.net.named_parameters()}
        for _ in range(3):
            logits = torch.func.functional_call(learner.net, weights, (task.support.x,))
            grads = torch.autograd.grad(F.cross_entropy(logits, task.support.y), list(weights.values()))
            moved = zip(weights.items(), grads, strict=True)
            weights = {k: (w - rates[k] * g).detach().requires_grad_() for (k, w), g in moved}
        wanted = torch.func.functional_call(learner.net, weights, (task.query.x,)).detach()
        found = learner.adapt(task.support)(task.query.x)
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def test_with_one_rate_for_all_it_is_maml(make: Callable[..., MAML], batch: Task) -> None:
    learner, maml = make("meta-sgd", steps=2, inner_lr=0.3), make("maml", steps=2, inner_lr=0.3)
    maml.net.load_state_dict(learner.net.state_dict())
    for task in batch.unbatch():
        ours, theirs = (m.adapt(task.support)(task.query.x) for m in (learner, maml))
        assert torch.equal(ours, theirs)


def test_a_head_of_fewer_ways_has_the_first_rows_of_the_rates(make: Callable[..., MetaSGD]) -> None:
    large, small = with_rates_of_all_kinds(make("meta-sgd", way=5)), make("meta-sgd", way=3)
    state = {k: v[:3] if "head" in k else v for k, v in large.state_dict().items()}
    small.load_state_dict(state)
    x, y = torch.rand(6, 1, 16, 16), torch.arange(6) % 3
    torch.testing.assert_close(large.adapt(x, y)(x), small.adapt(x, y)(x), rtol=1e-12, atol=1e-12)


def test_only_what_moves_has_a_rate() -> None:
    learner = MetaSGD(mlp(2, (3,)), way=2, inner_params="head")
    assert set(learner.rates.named()) == {"head.weight", "head.bias"}
    assert options(MetaSGD).keys() == options(MAML).keys()
    with pytest.raises(UserError, match="inner_lr must be at least 0"):
        MetaSGD(mlp(2), way=2, inner_lr=-0.1)


def test_rates_go_by_the_names_they_were_given() -> None:
    given = {"body.0.weight": torch.rand(2, 3), "head.bias": torch.rand(())}
    rates = Rates(given)
    assert {k: v.tolist() for k, v in rates.named().items()} == {k: v.tolist() for k, v in given.items()}
    assert rates.cut({"head.bias": torch.zeros(())})["head.bias"] == given["head.bias"]
    assert rates.cut({"body.0.weight": torch.zeros(1, 3)})["body.0.weight"].shape == (1, 3)
