"""A compiled meta-step beside the same by vmap; its graphs run operation by operation, and once compiled."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import UserError
from quickstudy.inner import (
    InnerProblem,
    Outcome,
    Rule,
    adam,
    by_step,
    chain,
    clip_by_norm,
    estimate,
    momentum,
    scheduled,
    sgd,
    solve,
    truncated,
)
from quickstudy.inner import compiled as module
from quickstudy.inner.compiled import prepared
from quickstudy.inner.programs import available
from quickstudy.learners import MAML, build
from quickstudy.nets import mlp, per_step
from quickstudy.nets.norm import BatchNorm
from quickstudy.tasks import ClassTasks, Sinusoids, Task


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Graphs are run as they are, without a compiler; the code of each that would be compiled."""
    found: list[str] = []

    def as_it_is(graph: Any, inputs: Any) -> Any:
        found.append(graph.code)
        return graph

    monkeypatch.setattr(module, "compiled", as_it_is)
    return found


@pytest.fixture
def pictures(blobs: ClassDataset) -> Task:
    return ClassTasks(blobs, 3, 2, query=2).batch(np.arange(4)).to(torch.get_default_dtype())


def sinusoids(tasks: int = 3) -> Task:
    return Sinusoids(shot=4, query=5).batch(np.arange(tasks)).to(torch.get_default_dtype())


def check_alike(learner: nn.Module, batch: Task, exact: float = 1e-10) -> None:
    """A compiled meta-step, and another with other numbers, equal the ones by vmap."""
    for _ in range(2):
        (found, gradient), (wanted, right) = (estimate(learner, batch, how) for how in ("compile", "vmap"))
        for group, other in (
            ({"loss": found.loss}, {"loss": wanted.loss}),
            (found.metrics, wanted.metrics),
            (found.stats, wanted.stats),
            (gradient, right),
        ):
            assert group.keys() == other.keys()
            for name, value in group.items():
                torch.testing.assert_close(value, other[name], rtol=exact, atol=exact)
        with torch.no_grad():
            for p in learner.parameters():
                p.add_(0.1 * torch.randn_like(p))
            batch = batch.with_tensors({k: v.flip(0).contiguous() for k, v in batch.tensors().items()})


class Descends(nn.Module):
    """A linear fit by some rule and method, whose rates are learned where the rule has them as parameters."""

    def __init__(self, rule: Rule | None, method: Any, steps: int = 3) -> None:
        super().__init__()
        self.weight, self.scale = nn.Parameter(torch.randn(4, 1)), nn.Parameter(torch.randn(4))
        self.rates = nn.Parameter(torch.full((steps,), 0.02))
        self.rule, self.method, self.steps = rule, method, steps

    def forward(self, task: Task) -> Outcome:
        def outputs(weight: Tensor, x: Tensor) -> Tensor:
            return torch.sin(x + self.scale) @ weight

        def loss(params: dict[str, Tensor], step: int) -> Tensor:
            error = outputs(params["weight"], task.support.x) - task.support.y
            return (1 + step) * error.square().mean()

        rule = self.rule or scheduled(sgd, by_step(self.rates))
        end = solve(InnerProblem({"weight": self.weight}, loss, rule, self.steps), self.method)
        error = outputs(end.params["weight"], task.query.x) - task.query.y
        return Outcome(error.square().mean(), {"before": end.losses[0], "last": end.losses[-1]})


@pytest.mark.usefixtures("float64", "graphs")
@pytest.mark.parametrize(
    ("rule", "method"),
    [
        (None, "unrolled"),
        (chain(clip_by_norm(0.5), adam(0.1)), "flat"),
        (momentum(0.1, 0.9), "first-order"),
        (sgd(0.1), truncated(2)),
    ],
)
def test_rules_and_methods_equal_vmap(rule: Rule | None, method: Any) -> None:
    check_alike(Descends(rule, method), sinusoids())


@pytest.mark.usefixtures("float64", "graphs")
@pytest.mark.parametrize(
    ("name", "norm"), [("maml", "support"), ("protonet", "batch"), ("reptile", "running")]
)
def test_learners_equal_vmap(name: str, norm: str, pictures: Task) -> None:
    body: Any = nn.Sequential(nn.Flatten(), nn.Linear(256, 4), BatchNorm(4), nn.Tanh())
    body.features, body.norm = 4, norm
    settings = {} if name == "protonet" else {"steps": 2}
    learner = build(name, body, way=3, classes=10, settings=settings).train()
    check_alike(learner, learner.prepare(pictures, torch.Generator().manual_seed(0)))


@pytest.mark.usefixtures("float64")
def test_steps_that_are_alike_are_compiled_once(graphs: list[str]) -> None:
    counts = []
    for steps in (2, 4):
        estimate(MAML(mlp(1, (4,)), way=1, steps=steps, inner_lr=0.1).train(), sinusoids(), "compile")
        counts.append(len(graphs))
        graphs.clear()
    assert counts == [3, 3]  # a step, its way back, and what surrounds them
    estimate(Descends(sgd(0.1), "unrolled", steps=2), sinusoids(), "compile")
    assert len(graphs) == 5  # whose loss depends on the step


@pytest.mark.usefixtures("float64")
def test_what_changes_is_compiled_anew(graphs: list[str]) -> None:
    learner = MAML(mlp(1, (4,)), way=1, steps=1, inner_lr=0.1).train()
    check_alike(learner, sinusoids())
    learner.inner_lr = 0.2
    check_alike(learner, sinusoids(4))
    assert len(graphs) == 6


@pytest.mark.usefixtures("float64", "graphs")
def test_normalisation_for_each_step_equals_vmap(pictures: Task) -> None:
    body: Any = nn.Sequential(nn.Flatten(), nn.Linear(256, 4), BatchNorm(4), nn.Tanh())
    body.features = 4
    check_alike(MAML(per_step(body, 2), way=3, steps=2).train(), pictures)


@pytest.mark.usefixtures("graphs")
def test_dropout_is_refused(pictures: Task) -> None:
    body: Any = nn.Sequential(nn.Flatten(), nn.Linear(256, 4), nn.Dropout(0.5))
    body.features = 4
    with pytest.raises(UserError, match=r"draws random numbers.*--strategy vmap"):
        estimate(MAML(body, way=3, steps=1).train(), pictures, "compile")


def test_without_a_compiler_it_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    learner = MAML(mlp(1, (4,)), way=1, steps=2, inner_lr=0.1).train()
    with caplog.at_level(logging.WARNING):
        check_alike(learner, sinusoids(), exact=0)
    said = "no C++ compiler (g++, clang++) is here: tasks are mapped by vmap, not compiled"
    assert caplog.messages == [said]


@pytest.mark.skipif(not available(torch.device("cpu")), reason="no C++ compiler")
def test_compiled_in_earnest(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    learner = MAML(mlp(1, (4,)), way=1, steps=2, inner_lr=0.1).train()
    check_alike(learner, sinusoids(), exact=1e-5)
    assert prepared(learner, sinusoids())
    assert any(tmp_path.rglob("*.so"))  # for the next run
