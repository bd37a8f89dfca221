"""Nets that average batch statistics by torch's functions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.errors import UserError
from quickstudy.inner import estimate
from quickstudy.learners import MAML
from quickstudy.tasks.task import Task

pytestmark = pytest.mark.usefixtures("float64")


class Averaging(nn.Module):
    features = 4

    def __init__(self, function: Any, kept: bool, averages: bool = True) -> None:
        super().__init__()
        self.function, self.averages, self.conv = function, averages, nn.Conv2d(1, 4, 3)
        for name, value in (("mean", torch.zeros(4)), ("var", torch.ones(4))):
            if kept:
                self.register_buffer(name, value)
            else:
                setattr(self, name, nn.Parameter(value, requires_grad=False))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.function is torch.batch_norm:
            x = torch.batch_norm(x, None, None, self.mean, self.var, self.averages, 0.1, 1e-5, True)
        elif self.function is F.batch_norm:
            x = F.batch_norm(x, self.mean, self.var, training=self.averages)
        else:
            x = F.instance_norm(x, self.mean, self.var, use_input_stats=self.averages)
        return x.mean((2, 3))


@pytest.mark.parametrize("strategy", ["auto", "loop", "threads", "vmap"])
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("function", [F.batch_norm, torch.batch_norm, F.instance_norm])
def test_a_net_that_averages_is_refused(function: Any, kept: bool, strategy: Any, batch: Task) -> None:
    learner = MAML(Averaging(function, kept), way=3, steps=2)
    for _ in range(2):
        with pytest.raises(UserError, match=r"averages batch statistics itself \(\w+_norm with"):
            estimate(learner.train(), batch, strategy)
    assert not learner.net.body.mean.any()


@pytest.mark.parametrize("function", [F.batch_norm, F.instance_norm])
def test_averages_may_be_read(function: Any, batch: Task) -> None:
    learner = MAML(Averaging(function, kept=True, averages=False), way=3, steps=2)
    estimate(learner.train(), batch, "loop")
    assert not learner.net.body.mean.any()
