"""Layers whose fast kernels have no second derivative, or a wrong one."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.inner.choice import Strategy
from quickstudy.inner.gradient import Params, gradient
from quickstudy.inner.mapping import map_tasks
from quickstudy.inner.twice import attention_by_math
from quickstudy.learners import MAML
from quickstudy.tasks import Query, Support, Task

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore:There is a performance drop"),  # attention in a map
]

SHAPE = (4, 3, 6)


class Functional(nn.Module):
    """A net that calls a functional itself, by keywords."""

    def __init__(self, function: Callable[..., Tensor], *args: object, size: int, **options: object) -> None:
        super().__init__()
        self.call = lambda x, w, b: function(x, *args, weight=w, bias=b, **options)
        self.w, self.b = nn.Parameter(torch.randn(size)), nn.Parameter(torch.randn(size))

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x, self.w, self.b)


NETS: dict[str, Callable[[], nn.Module]] = {
    "attention": lambda: nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True),
    "layer": lambda: nn.LayerNorm(6),
    "layer of two": lambda: nn.LayerNorm((3, 6), bias=False),
    "layer without scale": lambda: nn.LayerNorm(6, elementwise_affine=False),
    "instance": lambda: nn.InstanceNorm1d(3, affine=True),
    "instance without scale": lambda: nn.InstanceNorm1d(3),
    "group": lambda: nn.GroupNorm(3, 3),
    "functional layer": lambda: Functional(F.layer_norm, (6,), size=6, eps=1e-3),
    "functional batch": lambda: Functional(F.batch_norm, None, None, size=3, training=True, eps=1e-3),
}


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("mapped", [False, True])
def test_second_derivatives_by_finite_differences(net: str, mapped: bool) -> None:
    """Of a function of the gradient, by every parameter: those in front of a layer see its own second one."""
    layers = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), NETS[net](), nn.Tanh(), nn.Linear(6, 2))
    xs = torch.randn(2, *SHAPE)
    params = {k: torch.randn_like(p) / 2 for k, p in layers.named_parameters()}

    def after_a_step(x: Tensor, params: Params) -> Tensor:
        def loss(params: Params) -> Tensor:
            return torch.func.functional_call(layers, params, (x,)).sin().square().sum()

        _, grads = gradient(loss, params, create_graph=True)
        return torch.stack([g.square().sum() for g in grads.values()]).sum()

    def value(params: Params) -> Tensor:
        if not mapped:
            return torch.stack([after_a_step(x, params) for x in xs]).sum()
        own = {k: p.expand(len(xs), *p.shape) for k, p in params.items()}  # each task's, as after a step
        return torch.func.vmap(after_a_step)(xs, own).sum()

    leaves = {k: p.clone().requires_grad_() for k, p in params.items()}
    found = torch.autograd.grad(value(leaves), list(leaves.values()), materialize_grads=True)
    for (name, p), g in zip(params.items(), found, strict=True):
        direction = torch.randn_like(p)
        sides = [value({**params, name: p + eps * direction}).item() for eps in (1e-6, -1e-6)]
        wanted = (sides[0] - sides[1]) / 2e-6
        assert float((g * direction).sum()) == pytest.approx(wanted, rel=1e-5, abs=1e-4), name


@pytest.mark.parametrize("strategy", ["loop", "vmap"])
def test_a_transformer_layer_in_use_is_the_one_of_training(strategy: Strategy) -> None:
    """Where a layer is not trained, torch has a fused form of it, which no map and no inner loop can take."""

    class Sequence(nn.Module):
        features = 6

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x).mean(1)

    y = torch.arange(3).expand(2, 3)
    batch = Task(Support(torch.randn(2, 3, 5, 6), y, 3), Query(torch.randn(2, 3, 5, 6), y))
    learner = MAML(Sequence(), way=3, inner_lr=0.5, steps=2)
    learner.load_state_dict({k: torch.randn_like(v) / 2 for k, v in learner.state_dict().items()})

    def losses(net: MAML, task: Task) -> dict[str, Tensor]:
        return {"loss": net.judge(task).loss}

    trained = map_tasks(losses, learner.train(), batch, "loop")["loss"]
    with torch.no_grad():
        used = map_tasks(losses, learner.eval(), batch, strategy)["loss"]
    torch.testing.assert_close(used, trained.detach())


def test_blocks_that_overlap_in_two_threads_leave_nothing_behind() -> None:
    """The first to begin is the first to end."""
    before = torch.backends.cuda.flash_sdp_enabled(), torch.backends.mha.get_fastpath_enabled()
    entered, left = threading.Event(), threading.Event()

    def first() -> None:
        with attention_by_math():
            entered.set()
            left.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    entered.wait(10)
    with attention_by_math():
        left.set()
        thread.join()
        assert not torch.backends.cuda.flash_sdp_enabled()
        assert not torch.backends.mha.get_fastpath_enabled()
    assert (torch.backends.cuda.flash_sdp_enabled(), torch.backends.mha.get_fastpath_enabled()) == before
