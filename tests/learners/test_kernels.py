"""Every learner with native kernels is what it is with torch's, task by task and all tasks at once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from quickstudy.inner import estimate, flat, map_tasks
from quickstudy.inner.choice import Strategy
from quickstudy.learners import Learner
from quickstudy.nets import native
from quickstudy.nets.fused import Block
from quickstudy.tasks import Task

from .common import ALL, Make, few_steps

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    if not native.build(dtype=torch.float64):
        pytest.skip("no C compiler: the native kernels cannot be built")


@pytest.fixture(params=[1, 3])
def _threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the kernels that were called for several tasks at once."""
    names: list[str] = []
    call = native.Native.__call__

    def noting(self: Any, name: str, dims: Any, number: float, tasks: int | None, *rest: Any) -> None:
        names.extend([name] * ((tasks or 1) > 1))
        call(self, name, dims, number, tasks, *rest)

    monkeypatch.setattr(native.Native, "__call__", noting)
    return names


def computed(learner: Learner, batch: Task, strategy: Strategy) -> dict[str, Tensor]:
    """Losses, statistics and meta-gradient in training, and the outputs in use."""
    found = {}
    if learner.trains_on == "tasks":
        prepared = learner.train().prepare(batch, torch.Generator().manual_seed(1))
        outcome, found = estimate(learner, prepared, strategy)
        found |= {"loss": outcome.loss, **{f"stat {k}": v for k, v in outcome.stats.items()}}
    with torch.no_grad(), learner.eval().in_use():
        used = learner.prepare(batch, torch.Generator().manual_seed(2))
        return found | map_tasks(lambda m, t: {"outputs": m.judge(t).outputs}, learner, used, strategy)


@pytest.mark.parametrize("norm", ["batch", "support", "running"])
@pytest.mark.parametrize("name", [name for name in ALL if name != "pixel-nn"])
@pytest.mark.usefixtures("_threads")
def test_all_kernels_and_strategies_agree(
    name: str, norm: str, make: Make, batch: Task, used: list[str]
) -> None:
    learner = few_steps(name, make, norm)
    with native.allowing(False):
        wanted = computed(learner, batch, "loop")
    assert not used
    for strategy in ("loop", "vmap"):
        found = computed(learner, batch, strategy)
        assert found.keys() == wanted.keys()
        for k, v in wanted.items():
            torch.testing.assert_close(found[k], v, rtol=1e-9, atol=1e-9, msg=lambda m, k=k: f"{k}: {m}")
    assert used


@pytest.mark.parametrize("strategy", ["loop", "vmap"])
def test_flat_memory_sees_what_they_use(strategy: Strategy, make: Make, batch: Task, used: list[str]) -> None:
    """Scales and shifts that the inner loop leaves go into a kernel as they are."""
    learner = make("maml", steps=3, inner_params="filters")
    with native.allowing(False):
        _, wanted = estimate(learner, batch, "loop")
    learner.gradient = partial(flat, keep=0)
    for k, g in estimate(learner, batch, strategy)[1].items():
        torch.testing.assert_close(g, wanted[k], rtol=1e-9, atol=1e-9)
    assert wanted["net.body.0.norm.weight"].abs().sum() > 0
    assert bool(used) == (strategy == "vmap")


def test_tasks_share_what_they_do_not_have_for_themselves(batch: Task) -> None:
    """Whatever has a dimension over tasks, and wherever, it is as task by task; differentiated twice."""
    kernels = native._loaded(torch.float64)
    x, w, scale, shift = (
        torch.randn(5, 2, 6, 6, 4),
        torch.randn(3, 2, 3, 3),
        torch.randn(3, 5),
        torch.randn(3),
    )
    given = [v.requires_grad_() for v in (x, w, scale, shift)]

    def slope(x: Tensor, w: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        def loss(params: tuple[Tensor, ...]) -> Tensor:
            return Block.apply(kernels, x, *params, 1e-3, False)[0].sin().sum()

        grads = torch.func.grad(loss)((w, scale, shift))
        return sum(g.square().sum() for g in grads)

    together = torch.func.vmap(slope, in_dims=(0, None, 1, None))(*given)
    alone = torch.stack([slope(x[t], w, scale[:, t], shift) for t in range(5)])
    torch.testing.assert_close(together, alone)
    for mine, wanted in zip(
        torch.autograd.grad(together.sin().sum(), given),
        torch.autograd.grad(alone.sin().sum(), given),
        strict=True,
    ):
        torch.testing.assert_close(mine, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit.script:DeprecationWarning"
)  # torch's own, in its forward mode
def test_where_they_have_no_rule_they_are_torchs(make: Make, batch: Task) -> None:
    """Forward mode, and a map in a map."""
    net, x = make("maml").net.body, batch.support.x[0]
    with native.kernels():
        assert native.native(x) is not None
        assert torch.func.grad(lambda x: float(native.native(x) is not None) * x.sum())(x).all()
        assert torch.func.vmap(torch.func.vmap(lambda x: x * (native.native(x) is None)))(x).equal(x)
        _, slope = torch.func.jvp(net, (x,), (torch.ones_like(x),))
        step = 1e-6
        difference = (net(x + step) - net(x - step)) / (2 * step)
    torch.testing.assert_close(slope, difference, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("strategy", ["loop", "vmap"])
def test_a_learner_whose_inner_loop_carries_moments(strategy: Strategy, make: Make, batch: Task) -> None:
    """Whoever does not say that moments are not kept gets them with gradients, in second order too."""

    class Careless(type(make("maml"))):
        def support_moments(self, *, kept: bool = True, step: int | None = None) -> Any:
            return super().support_moments(step=step)

    learner = make("maml", steps=2)
    learner.__class__ = Careless
    with native.allowing(False):
        _, wanted = estimate(learner.train(), batch, "loop")
    for k, g in estimate(learner, batch, strategy)[1].items():
        torch.testing.assert_close(g, wanted[k], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("strategy", ["loop", "vmap"])
@pytest.mark.parametrize("moved", ["all", "filters", r"body\.0\."])
def test_in_flat_memory(moved: str, strategy: Strategy, make: Make, batch: Task, used: list[str]) -> None:
    """Also where a kernel uses weights that are not adapted."""
    learner = make("maml", steps=4, inner_params=moved).train()
    with native.allowing(False):
        _, wanted = estimate(learner, batch, "loop")
    learner.gradient = partial(flat, keep=1)
    for k, g in estimate(learner, batch, strategy)[1].items():
        torch.testing.assert_close(g, wanted[k], rtol=1e-9, atol=1e-9, msg=lambda m, k=k: f"{k}: {m}")
    assert bool(used) == (strategy == "vmap")
