"""A compiled meta-step beside the same by vmap; its graphs run operation by operation, and once compiled."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from quickstudy.data.dataset import ClassDataset
from quickstudy.inner import (
    InnerProblem,
    Outcome,
    Rule,
    adam,
    by_step,
    chain,
    clip_by_norm,
    estimate,
    gradient,
    implicit,
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


def check_alike(learner: nn.Module, batch: Task, exact: float = 1e-10, compiled: bool = True) -> None:
    """A compiled meta-step, and another with other numbers, equal the ones by vmap."""
    for _ in range(2):
        (found, gradient), (wanted, right) = (estimate(learner, batch, how) for how in ("compile", "vmap"))
        assert prepared(learner, batch) == compiled
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


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What this library logged."""
    return [record.message for record in caplog.records if record.name == "quickstudy"]


class Descends(nn.Module):
    """A linear fit by some rule and method, whose rates are learned where the rule has them as parameters."""

    def __init__(self, rule: Rule | None, method: Any, steps: int = 2) -> None:
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
        (sgd(0.1), implicit(5.0)),
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


@pytest.mark.usefixtures("float64", "graphs")
def test_attention_is_compiled_though_its_fast_kernel_is_no_maps(pictures: Task) -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 8, dropout=0.0, batch_first=True, dtype=torch.float64)
    body: Any = nn.Sequential(nn.Flatten(1, 2), layer, nn.Flatten())
    body.features = 256
    check_alike(MAML(body, way=3, steps=2).train(), pictures)


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


def rewire(learner: MAML, changed: str) -> None:
    """Change a learner in a way that shows in no number of its tensors."""
    body: Any = learner.net.body
    if changed == "class":
        body[2] = nn.Sigmoid()
    elif changed == "hook":
        body[2].register_forward_hook(lambda module, given, made: 2 * made)
    elif changed == "frozen":
        body[1].weight.requires_grad_(False)
    elif changed == "inside":
        learner.config.inner.rate = 0.4
    else:
        value = {"inner_lr": np.float32(0.4), "gradient": truncated(0), "training": False}[changed]
        setattr(body if changed == "training" else learner, changed, value)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("changed", ["class", "hook", "frozen", "inside", "inner_lr", "gradient", "training"])
def test_what_changes_is_compiled_anew(changed: str, graphs: list[str]) -> None:
    learner = MAML(mlp(1, (4,)), way=1, steps=1, inner_lr=0.1).train()
    learner.gradient, learner.config = truncated(1), SimpleNamespace(inner=SimpleNamespace(rate=0.1))
    check_alike(learner, sinusoids())
    before = len(graphs)
    rewire(learner, changed)
    check_alike(learner, sinusoids())
    assert len(graphs) > before


@pytest.mark.usefixtures("graphs")
def test_what_changes_always_is_not_compiled(caplog: pytest.LogCaptureFixture) -> None:
    learner = MAML(mlp(1, (4,)), way=1, steps=1, inner_lr=0.1).train()
    for i in range(7):
        learner.inner_lr = 0.1 + i
        estimate(learner, sinusoids(), "compile")
        assert prepared(learner, sinusoids()) == (i < 4)
    assert said(caplog) == [
        "tasks are mapped by vmap, not compiled: MAML changed 4 times since it was compiled"
    ]


@pytest.mark.usefixtures("graphs")
def test_too_many_steps_that_are_not_alike_are_not_compiled(caplog: pytest.LogCaptureFixture) -> None:
    check_alike(Descends(adam(0.1), "unrolled", steps=7), sinusoids(), exact=0, compiled=False)
    assert "its inner steps are of 14 kinds" in caplog.text


@pytest.mark.usefixtures("float64", "graphs")
def test_normalisation_for_each_step_equals_vmap(pictures: Task) -> None:
    body: Any = nn.Sequential(nn.Flatten(), nn.Linear(256, 4), BatchNorm(4), nn.Tanh())
    body.features = 4
    check_alike(MAML(per_step(body, 2), way=3, steps=2).train(), pictures)


@pytest.mark.usefixtures("float64", "graphs")
def test_a_second_derivative_through_a_step_is_not_dropped(caplog: pytest.LogCaptureFixture) -> None:
    class Twice(Descends):
        def forward(self, task: Task) -> Outcome:
            _, inner = gradient(lambda p: self.end(p, task).sum(), {"weight": self.weight}, True)
            return Outcome(inner["weight"].square().sum())

        def end(self, params: dict[str, Tensor], task: Task) -> Tensor:
            def loss(params: dict[str, Tensor], step: int) -> Tensor:
                return (torch.sin(task.support.x + self.scale) @ params["weight"]).exp().mean()

            return solve(InnerProblem(params, loss, sgd(0.1), 2)).params["weight"]

    check_alike(Twice(None, "unrolled"), sinusoids(), compiled=False)
    assert "marked once_differentiable" in caplog.text


@pytest.mark.usefixtures("graphs")
@pytest.mark.parametrize("cannot", ["dropout", "tensor"])
def test_what_cannot_be_compiled_is_mapped_by_vmap(
    cannot: str, pictures: Task, caplog: pytest.LogCaptureFixture
) -> None:
    class Shifted(nn.Linear):
        shift = torch.ones(4)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + self.shift

    layer = nn.Dropout(0.5) if cannot == "dropout" else Shifted(4, 4)
    body: Any = nn.Sequential(nn.Flatten(), nn.Linear(256, 4), layer)
    body.features = 4
    learner = MAML(body, way=3, steps=1).train()
    for _ in range(2):
        torch.manual_seed(0)
        _, found = estimate(learner, pictures, "compile")
        torch.manual_seed(0)
        torch.testing.assert_close(found, estimate(learner, pictures, "vmap")[1], rtol=0, atol=0)
    (line,) = said(caplog)
    assert line.startswith("tasks are mapped by vmap, not compiled: ")
    assert ("draws random numbers" in line) == (cannot == "dropout")


def test_without_a_compiler_it_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    learner = MAML(mlp(1, (4,)), way=1, steps=2, inner_lr=0.1).train()
    check_alike(learner, sinusoids(), exact=0, compiled=False)
    assert said(caplog) == ["tasks are mapped by vmap, not compiled: no C++ compiler (g++, clang++) is here"]


def test_compiled_in_earnest(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    if not available(torch.device("cpu")):  # where there is none, vmap stands in: the test above
        pytest.skip("no C++ compiler is here: nothing can be compiled in earnest")
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)  # which torch sets as it traces anything
    check_alike(MAML(mlp(1, (4,)), way=1, steps=2, inner_lr=0.1).train(), sinusoids(), exact=1e-5)
    assert any((tmp_path / "compiled").rglob("*.so"))  # for the next run
