from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from quickstudy.learners import ANIL, MAML
from quickstudy.learners.registry import option_help, options
from quickstudy.nets import mlp
from quickstudy.tasks import Task

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("steps", [1, 5])
def test_meta_gradient_by_finite_differences(
    steps: int, smooth: type[nn.Module], batch: Task, agrees: Callable[..., None]
) -> None:
    agrees(ANIL(smooth(), way=3, inner_lr=0.5, steps=steps), batch)


def test_a_logistic_regression_on_fixed_features(make: Callable[..., ANIL], batch: Task) -> None:
    """The whole method by hand: features once, then gradient descent on a linear head."""
    learner = make("anil", "layer", steps=6, inner_lr=0.3)
    for task in batch.unbatch():
        z = learner.net.body(task.support.x).detach()
        head = nn.Linear(z.shape[1], 3)
        head.load_state_dict(learner.net.head.state_dict())
        optimizer = torch.optim.SGD(head.parameters(), 0.3)
        for _ in range(6):
            optimizer.zero_grad()
            F.cross_entropy(head(z), task.support.y).backward()
            optimizer.step()
        wanted = head(learner.net.body(task.query.x)).detach()
        predicted = learner.adapt(task.support)(task.query.x)
        torch.testing.assert_close(predicted, wanted, rtol=1e-10, atol=1e-10)


def test_it_is_maml_with_other_defaults() -> None:
    assert options(ANIL).keys() == options(MAML).keys()
    wanted = {"inner_params": "head", "inner_lr": 0.1, "steps": 5, "test_steps": None, "gradient": None}
    assert {k: p.default for k, p in options(ANIL).items()} == wanted
    assert option_help(ANIL) == option_help(MAML)
    learner = ANIL(mlp(2), way=3, steps=2, test_steps=4)
    assert {k: getattr(learner, k) for k in wanted} == {**wanted, "steps": 2, "test_steps": 4}
    assert learner.way == 3
