from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.errors import DataError, TaskError
from quickstudy.inner import estimate
from quickstudy.learners import MAML, MMAML
from quickstudy.nets import mlp
from quickstudy.tasks import FiveModes, Support, Task

pytestmark = pytest.mark.usefixtures("float64")


def modulating(learner: MMAML) -> MMAML:
    """An encoder that answers something."""
    with torch.no_grad():
        for p in learner.encoder.parameters():
            p.normal_(0, 0.3)
    return learner


@pytest.mark.parametrize("norm", ["support", "batch"])
@pytest.mark.parametrize("steps", [1, 3])
def test_meta_gradient_by_finite_differences(
    steps: int, norm: str, smooth: Callable[[str], nn.Module], batch: Task, agrees: Callable[..., None]
) -> None:
    agrees(modulating(MMAML(smooth(norm), way=3, inner_lr=0.3, steps=steps)), batch)


def test_it_begins_as_maml(make: Callable[..., MAML], batch: Task) -> None:
    learner, maml = make("mmaml", steps=2), make("maml", steps=2)
    maml.net.load_state_dict(learner.net.state_dict())
    (a, found), (b, wanted) = (estimate(m, batch, "loop") for m in (learner, maml))
    assert torch.equal(a.loss, b.loss)
    for k, v in wanted.items():
        torch.testing.assert_close(found[k], v, rtol=1e-12, atol=1e-14)
    assert found["encoder.task.2.bias"].norm() > 0  # and the encoder has something to learn


def test_the_inner_loop_starts_where_the_encoder_says() -> None:
    """By hand: one linear layer of the body, whose outputs are modulated, then gradient descent."""
    learner = modulating(MMAML(mlp(2, (4,)), way=3, inner_lr=0.2, steps=2))
    x, y, query = torch.randn(6, 2), torch.randn(6, 3), torch.randn(5, 2)
    z = torch.cat([learner.reader(x), y], -1)
    gamma, beta = learner.encoder.task(learner.encoder.example(z).mean(0)).detach().split(4)
    gamma = gamma.tanh()
    layer, head = learner.net.body[1], learner.net.head
    weights = [
        ((1 + gamma)[:, None] * layer.weight, (1 + gamma) * layer.bias + beta),
        (head.weight, head.bias),
    ]
    params = [w.detach().clone().requires_grad_() for pair in weights for w in pair]

    def answer(x: Tensor) -> Tensor:
        return F.linear(F.relu(F.linear(x, *params[:2])), *params[2:])

    plain = F.linear(F.relu((1 + gamma) * layer(x) + beta), head.weight, head.bias)
    torch.testing.assert_close(answer(x), plain)
    for _ in range(2):
        grads = torch.autograd.grad(F.mse_loss(answer(x), y), params)
        params = [(p - 0.2 * g).detach().requires_grad_() for p, g in zip(params, grads, strict=True)]
    torch.testing.assert_close(learner.adapt(x, y)(query), answer(query).detach(), rtol=1e-10, atol=1e-12)


def test_each_task_has_its_own_start(make: Callable[..., MMAML], batch: Task) -> None:
    learner, (first, second, _) = modulating(make("mmaml", "layer")), batch.unbatch()
    a, b = (learner.start(task.support)["body.0.norm.weight"] for task in (first, second))
    assert (a - b).abs().max() > 1e-3


@pytest.mark.parametrize("norm", ["support", "batch", "running"])
def test_no_query_is_read(norm: str, make: Callable[..., MMAML], batch: Task) -> None:
    """The encoder's own normalisation is the support set's in every mode."""
    learner, task = modulating(make("mmaml", norm)).eval(), next(batch.unbatch())
    with torch.no_grad():
        wanted = learner.film(task.support)
        for layer in learner.reader.modules():
            if hasattr(layer, "mean"):
                layer.mean += 1
        assert torch.equal(learner.film(task.support), wanted)


def test_fewer_ways_and_other_targets(make: Callable[..., MMAML]) -> None:
    learner, x = modulating(make("mmaml", way=5)), torch.rand(6, 1, 16, 16)
    assert learner.adapt(x, torch.arange(6) % 3)(x).shape == (6, 3)
    with pytest.raises(TaskError, match="at most 5 ways, not 6"):
        learner.adapt(x, torch.arange(6))
    with pytest.raises(DataError, match="targets of 7 values, but this learner predicts at most 5"):
        learner.adapt(x, torch.rand(6, 7))


def test_a_saved_learner_answers_the_same() -> None:
    task = FiveModes(shot=5).task(0).to(torch.float64)
    learner, other = (modulating(MMAML(mlp(1), way=1, inner_lr=0.01)) for _ in range(2))
    other.load_state_dict(learner.state_dict())
    support = Support(task.support.x, task.support.y)
    assert torch.equal(other.adapt(support)(task.query.x), learner.adapt(support)(task.query.x))


def test_a_body_of_a_single_layer_is_modulated_too() -> None:
    body = nn.Linear(2, 3)
    body.features = 3
    learner, x = MMAML(body, way=1, inner_lr=0.1), torch.rand(4, 2)
    changed = learner.start(Support.of(x, x[:, :1]))
    assert changed["body.weight"].shape == (3, 2)
    assert learner.adapt(x, x[:, :1])(x).shape == (4, 1)
