from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from quickstudy.learners import BOIL, MAML
from quickstudy.learners.registry import option_help, options
from quickstudy.tasks import Task

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("steps", [1, 4])
def test_meta_gradient_by_finite_differences(
    steps: int, smooth: type[nn.Module], batch: Task, agrees: Callable[..., None]
) -> None:
    agrees(BOIL(smooth(), way=3, inner_lr=0.3, steps=steps), batch)


def test_features_come_to_a_head_that_stays(make: Callable[..., BOIL], batch: Task) -> None:
    learner = make("boil", "layer", steps=3, inner_lr=0.3)
    for task in batch.unbatch():
        body = {k: p.detach().clone().requires_grad_() for k, p in learner.net.body.named_parameters()}
        head = learner.net.head
        for _ in range(3):
            z = torch.func.functional_call(learner.net.body, body, (task.support.x,))
            grads = torch.autograd.grad(F.cross_entropy(head(z), task.support.y), list(body.values()))
            body = {
                k: (w - 0.3 * g).detach().requires_grad_()
                for (k, w), g in zip(body.items(), grads, strict=True)
            }
        wanted = head(torch.func.functional_call(learner.net.body, body, (task.query.x,))).detach()
        found = learner.adapt(task.support)(task.query.x)
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def test_it_is_maml_with_other_defaults() -> None:
    assert options(BOIL).keys() == options(MAML).keys()
    assert option_help(BOIL) == option_help(MAML)
