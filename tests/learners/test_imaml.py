from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.errors import UserError
from quickstudy.inner import estimate
from quickstudy.learners import IMAML
from quickstudy.nets import mlp
from quickstudy.tasks import Task

pytestmark = pytest.mark.usefixtures("float64")


def small() -> IMAML:
    """Without kinks, and few weights: 16·16 inputs meet 2 units."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(256, 2), nn.Tanh())
    body.features = 2
    return IMAML(body, way=3, inner_lr=0.2, steps=60, strength=1.5, cg_steps=25, damping=2.0)


def by_hand(learner: IMAML, x: Tensor, y: Tensor) -> tuple[Tensor, Callable[[Tensor, Tensor], Tensor]]:
    """The end of the descent of L(θ') + λ/2 ‖θ' − θ‖² as one vector, and the net as a function of that."""
    shapes = {k: p.shape for k, p in learner.net.named_parameters()}
    start = torch.cat([p.detach().flatten() for p in learner.net.parameters()])

    def logits(vector: Tensor, x: Tensor) -> Tensor:
        parts = vector.split([shape.numel() for shape in shapes.values()])
        weights = {k: v.view(shape) for (k, shape), v in zip(shapes.items(), parts, strict=True)}
        return torch.func.functional_call(learner.net, weights, (x,))

    vector = start.clone()
    for _ in range(learner.steps):
        vector.requires_grad_()
        loss = F.cross_entropy(logits(vector, x), y) + learner.strength / 2 * (vector - start).square().sum()
        vector = (vector - learner.inner_lr * torch.autograd.grad(loss, vector)[0]).detach()
    return vector, logits


def test_in_use_it_descends_the_proximal_objective(batch: Task) -> None:
    learner, task = small(), next(batch.unbatch())
    end, logits = by_hand(learner, task.support.x, task.support.y)
    found = learner.adapt(task.support)(task.query.x)
    torch.testing.assert_close(found, logits(end, task.query.x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("strategy", ["loop", "vmap"])
def test_the_meta_gradient_by_the_whole_hessian(strategy: str, batch: Task) -> None:
    """λ (H + λI)⁻¹ ∇L'(θ*), λ damped, the system solved at once."""
    learner, wanted = small(), torch.zeros(())
    for task in batch.unbatch():
        x, y = task.support.x, task.support.y
        end, logits = by_hand(learner, x, y)

        def loss(v: Tensor, x: Tensor = x, y: Tensor = y, logits: Any = logits) -> Tensor:
            return F.cross_entropy(logits(v, x), y)

        hessian = torch.autograd.functional.hessian(loss, end)
        end.requires_grad_()
        outer = torch.autograd.grad(loss(end, task.query.x, task.query.y), end)[0]
        damped = learner.strength + learner.damping
        wanted = wanted + damped * torch.linalg.solve(hessian + damped * torch.eye(len(end)), outer) / 3
    _, gradient = estimate(learner, batch, strategy)
    found = torch.cat([gradient[f"net.{k}"].flatten() for k, _ in learner.net.named_parameters()])
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-8)


def test_strength_and_conjugate_gradients_are_options_of_now(batch: Task) -> None:
    learner = small()
    gradients = []
    for strength, cg_steps, damping in ((1.5, 25, 2.0), (1.5, 1, 2.0), (0.5, 25, 2.0), (1.5, 25, 0.0)):
        learner.strength, learner.cg_steps, learner.damping = strength, cg_steps, damping
        gradients.append(estimate(learner, batch)[1]["net.head.weight"])
    for other in gradients[1:]:
        assert not torch.allclose(gradients[0], other, rtol=1e-4)


@pytest.mark.parametrize("options", [{"strength": 0.0}, {"cg_steps": 0}])
def test_no_strength_and_no_solver_are_errors(options: dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"must be a(bove 0|t least 1)"):
        IMAML(mlp(2), way=2, **options)
