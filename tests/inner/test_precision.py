"""bf16: used in every net by every strategy and way back, and by nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import Context
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import UserError
from quickstudy.inner import Outcome, computing_in, estimate, flat, implicit, memory, truncated
from quickstudy.inner.choice import Strategy
from quickstudy.inner.memory import portions
from quickstudy.inner.precision import computed
from quickstudy.inner.rules import Params
from quickstudy.learners import MAML, Learner, ProtoNet, build
from quickstudy.nets import conv4, mlp, native, resnet
from quickstudy.tasks import ClassTasks, Task

METHODS: dict[str, Any] = {
    "unrolled": "unrolled",
    "flat": partial(flat, keep=1),
    "first-order": "first-order",
    "truncated": truncated(2),
    "implicit": implicit(10.0),
}


@pytest.fixture
def batch(blobs: ClassDataset) -> Task:
    return ClassTasks(blobs, 3, 2, query=2).batch(np.arange(4)).to(torch.float32)


@pytest.fixture(autouse=True)
def _torchs_kernels() -> Iterator[None]:
    """Float32 by torch's kernels, as bf16: the difference is then one of precision."""
    with native.allowing(False):
        yield


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def maml(body: nn.Module, method: Any = None, steps: int = 3, lr: float = 0.05) -> Learner:
    learner = MAML(body, way=3, inner_lr=lr, steps=steps)
    learner.gradient = method
    return learner.train()


def in_bf16(learner: Learner, batch: Task, strategy: Strategy = "loop") -> tuple[Outcome, Params]:
    with computing_in("bf16"):
        return estimate(learner, batch, strategy)


def together(gradient: Params) -> Tensor:
    return torch.cat([v.flatten() for v in gradient.values()])


def distance(a: Params, b: Params) -> float:
    return float((together(a) - together(b)).norm() / together(b).norm())


@pytest.mark.parametrize("strategy", ["loop", "vmap"])
@pytest.mark.parametrize("method", METHODS)
def test_the_meta_gradient_is_near_that_of_float32(method: str, strategy: Strategy, batch: Task) -> None:
    """A number of 8 bits is off by 2⁻⁹ at most; through three layers and three steps, there and back, such
    errors come to some hundredths, an angle whose cosine is above 0.99 (an angle of 0.14)."""
    learner = maml(mlp(256, (16, 16)), METHODS[method])
    outcome, found = in_bf16(learner, batch, strategy)
    wanted_outcome, wanted = estimate(learner, batch, strategy)
    assert torch.cosine_similarity(together(found), together(wanted), 0) > 0.99
    assert distance(found, wanted) > 1e-4
    assert not torch.equal(outcome.loss, wanted_outcome.loss)
    assert {v.dtype for v in (outcome.loss, *outcome.metrics.values(), *found.values())} == {torch.float32}
    assert {p.dtype for p in learner.parameters()} == {torch.float32}


@pytest.mark.parametrize("strategy", ["loop", "vmap"])
@pytest.mark.parametrize(
    "body",
    [lambda: conv4(4, size=16), lambda: conv4(4, size=16, norm="group"), lambda: resnet((4, 8))],
    ids=["conv4", "group", "resnet"],
)
def test_in_convolutions_it_is_off_as_by_rounded_weights(body: Any, strategy: Strategy, batch: Task) -> None:
    """A meta-gradient through pooling and normalisation may turn far at a small change of the weights: how
    far, float32 tells, of weights and pictures rounded to bf16 once. Here each layer rounds again."""
    learner = maml(body(), steps=1)
    _, wanted = estimate(learner, batch, strategy)
    _, found = in_bf16(learner, batch, strategy)
    with torch.no_grad():
        for p in learner.parameters():
            p.copy_(p.bfloat16())
    rounded = batch.with_tensors(
        {k: v.bfloat16().float() if v.is_floating_point() else v for k, v in batch.tensors().items()}
    )
    _, turned = estimate(learner, rounded, strategy)
    assert distance(turned, wanted) / 4 < distance(found, wanted) < 6 * distance(turned, wanted)


@pytest.mark.parametrize("norm", ["support", "batch", "running", "group"])
@pytest.mark.parametrize("strategy", ["loop", "vmap"])
def test_layers_make_bf16_and_learners_float32(
    norm: str, strategy: Strategy, batch: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[type, set[torch.dtype]] = {}
    body: Any = nn.Sequential(conv4(4, size=16, norm=norm), nn.Linear(4, 5))
    body.features, body.norm = 5, norm
    learner = maml(body, steps=2)
    for layer in learner.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):  # the head, which is the learner's, is not called
            layer.register_forward_hook(lambda m, x, y: made.setdefault(type(m), set()).add(y.dtype))
    moments: set[torch.dtype] = set()
    learn = learner.learn

    def watching(support: Any) -> Any:
        predictor = learn(support)
        moments.update(v.dtype for pairs in predictor.moments.seen.values() for v in sum(pairs, ()))
        moments.update(loss.dtype for loss in predictor.losses)
        return predictor

    monkeypatch.setattr(learner, "learn", watching)
    in_bf16(learner, batch, strategy)
    assert made == {nn.Conv2d: {torch.bfloat16}, nn.Linear: {torch.bfloat16}}
    assert moments == {torch.float32}


@pytest.mark.parametrize("name", ["maml", "anil", "reptile", "protonet", "proto-maml", "pretrain-centroid"])
@pytest.mark.usefixtures("two_threads")
def test_threads_are_the_loop_bit_for_bit(name: str, batch: Task) -> None:
    learner = build(name, mlp(256, (8,)), way=3, classes=10).train()
    prepared = learner.prepare(batch, torch.Generator().manual_seed(0))
    torch.set_num_threads(1)
    outcome, wanted = in_bf16(learner, prepared)
    plain, _ = estimate(learner, prepared, "loop")
    assert not torch.equal(plain.metrics["loss"], outcome.metrics["loss"])
    torch.set_num_threads(2)
    for _ in range(2):
        found, gradient = in_bf16(learner, prepared, "threads")
        assert torch.equal(found.loss, outcome.loss)
        assert all(torch.equal(gradient[k], v) for k, v in wanted.items())


@pytest.mark.parametrize("body", [lambda: mlp(256, (8, 8)), lambda: conv4(4, size=16)])
@pytest.mark.parametrize("strategy", ["loop", "vmap"])
def test_flat_memory_is_the_unrolled_loop(body: Any, strategy: Strategy, batch: Task) -> None:
    """Also where filters lie otherwise in memory than their shape says: steps that are made again sum in the
    same order."""
    learner = maml(body())
    _, wanted = in_bf16(learner, batch, strategy)
    learner.gradient = partial(flat, keep=1)
    _, found = in_bf16(learner, batch, strategy)
    assert distance(found, wanted) < 1e-6


@pytest.mark.parametrize("method", ["flat", "implicit"])
def test_what_is_made_again_on_the_way_back_is_made_as_it_was(method: str, batch: Task) -> None:
    """On a GPU the way back runs in another thread, outside of every block; here after its end."""
    learner, task = maml(mlp(256, (8, 8)), METHODS[method]), next(batch.unbatch())
    params = list(learner.parameters())
    with computing_in("bf16"):
        inside = torch.autograd.grad(learner(task).loss, params)
        loss = learner(task).loss
    outside = torch.autograd.grad(loss, params)
    assert all(map(torch.equal, outside, inside))
    plain = learner(task).loss  # and float32 stays float32 where bf16 is asked for later
    with computing_in("bf16"):
        late = torch.autograd.grad(plain, params)
    assert all(map(torch.equal, late, torch.autograd.grad(learner(task).loss, params)))


def test_weights_are_cast_as_they_are_now() -> None:
    """Autocast's cache keeps those of a first call until its outermost block, here a user's, ends."""
    net, x = nn.Linear(4, 2), torch.rand(3, 4)
    with torch.autocast("cpu", torch.bfloat16), computing_in("bf16"):
        computed(net, x)
        with torch.no_grad():
            for p in net.parameters():
                p.zero_()
        assert not computed(net, x).any()


def test_portions_are_of_what_graphs_hold_in_this_precision(
    batch: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = ProtoNet(conv4(8, size=16, norm="batch")).train()
    for precision, count in (("float32", 4), ("bf16", 2)):
        if precision == "float32":
            list(portions(learner, batch))
            (held,) = memory._held[learner].values()
            monkeypatch.setattr(memory, "GRAPHS", int(1.6 * held))
        with computing_in(precision):
            assert len(list(portions(learner, batch))) == count


def test_predictions_are_in_the_precision_of_the_block(batch: Task) -> None:
    learner, task = ProtoNet(mlp(256, (8,))), next(batch.unbatch())
    plain = learner.adapt(task.support)(task.query.x)
    with computing_in("bf16"):
        found = learner.adapt(task.support)(task.query.x)
    assert found.dtype == torch.float32
    assert 0 < (found - plain).norm() / plain.norm() < 0.02


def test_native_kernels_are_off() -> None:
    def there() -> bool:
        if not native.build():
            pytest.skip("no C compiler: the native kernels cannot be built")
        with computing_in("bf16"):
            return native.built()

    assert not Context().run(there)  # where nothing is turned off, as it is in these tests


def test_what_is_refused(batch: Task) -> None:
    with pytest.raises(
        UserError, match=r"unknown precision 'bf61': did you mean 'bf16'\? \(known: bf16, flo"
    ):
        computing_in("bf61").__enter__()
    with pytest.raises(UserError, match=r"bf16 is for learners in float32, not float64: call learner\.float"):
        in_bf16(maml(mlp(256, (8,))).double(), batch.to(torch.float64))
