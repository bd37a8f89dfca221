"""What every learner promises to whoever adapts it: what it takes, keeps and refuses."""

from __future__ import annotations

import copy
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import DataError, UserError
from quickstudy.learners import MAML, Predictor, ProtoNet
from quickstudy.nets import mlp
from quickstudy.tasks import Support, Task

from .common import ALL, DESCENDING, SEQUENTIAL, Make, close, few_steps

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("norm", ["support", "batch", "running"])
def test_adapt_never_changes_the_learner_nor_training_the_predictor(
    name: str, norm: str, make: Make, batch: Task
) -> None:
    learner, task = few_steps(name, make, norm), next(batch.unbatch())
    before = {k: v.clone() for k, v in learner.state_dict().items()}
    predictor = learner.adapt(task.support.x, task.support.y)
    first = predictor(task.query.x)
    assert learner.training
    assert all(p.grad is None for p in learner.parameters())
    assert all(torch.equal(v, before[k]) for k, v in learner.state_dict().items())

    with torch.no_grad():  # as a meta-step, and a user who goes on to measure something else
        for tensor in (*learner.parameters(), *learner.buffers()):
            tensor += 1
    learner.statistics = "running" if norm == "batch" else "batch"
    for option in learner.candidates()[-1:]:
        for k, v in option.items():
            setattr(learner, k, v + 1)
    learner.eval()
    assert torch.equal(predictor(task.query.x), first)


@pytest.mark.parametrize("name", [k for k in ALL if k != "pixel-nn"])
def test_another_net_in_the_learner_leaves_its_predictors_alone(name: str, make: Make, batch: Task) -> None:
    learner, task = few_steps(name, make), next(batch.unbatch())
    predictor = learner.adapt(task.support)
    first = predictor(task.query.x)
    holder = learner.net if hasattr(learner, "net") else learner
    holder.body = nn.Sequential(holder.body, nn.Tanh())
    assert torch.equal(predictor(task.query.x), first)


@pytest.mark.parametrize("name", ALL)
def test_a_predictor_is_the_same_from_tensors_and_from_a_support_set(
    name: str, make: Make, batch: Task
) -> None:
    learner, task = few_steps(name, make), next(batch.unbatch())
    a, b = learner.adapt(task.support.x, task.support.y), learner.adapt(task.support)
    assert a.way == b.way == 3
    output = a(task.query.x)
    assert output.shape == (9, 3)
    assert output.grad_fn is None
    assert torch.equal(output, b(task.query.x))
    close(a.probabilities(task.query.x), output.softmax(-1), "probabilities")
    with torch.no_grad():
        close(learner.eval().learn(task.support)(task.query.x), output, "learn")
        judged = learner.judge(task)
    close(judged.loss, F.cross_entropy(output, task.query.y), "loss")


@pytest.mark.parametrize("name", ALL)
def test_uint8_equals_float(name: str, make: Make, blobs: ClassDataset) -> None:
    learner = few_steps(name, make).float()
    x, y = blobs.x[::7], (torch.arange(160) // 20)[::7] % 3
    wanted = learner.adapt(x.float() / 255, y)(blobs.x[:5].float() / 255)
    torch.testing.assert_close(learner.adapt(x, y)(blobs.x[:5]), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", [k for k in ALL if k not in SEQUENTIAL])
def test_the_order_of_the_support_set_does_not_matter(name: str, make: Make, batch: Task) -> None:
    learner, task = few_steps(name, make, "layer"), next(batch.unbatch())
    order = torch.randperm(len(task.support.x))
    ours = learner.adapt(task.support.x[order], task.support.y[order])(task.query.x)
    torch.testing.assert_close(ours, learner.adapt(task.support)(task.query.x), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["maml", "protonet"])
def test_predictors_of_one_learner_in_two_threads(name: str, make: Make, batch: Task) -> None:
    learner, tasks = few_steps(name, make), list(batch.unbatch())[:2]
    predictors = [learner.adapt(task.support) for task in tasks]
    wanted = [predictor(task.query.x) for predictor, task in zip(predictors, tasks, strict=True)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def right(i: int) -> bool:
        adapted = learner.adapt(tasks[i].support)
        return all(torch.equal(p(tasks[i].query.x), wanted[i]) for p in (predictors[i], adapted))

    try:
        with ThreadPoolExecutor(2) as pool:
            assert all(pool.map(right, [0, 1] * 10))
    finally:
        sys.setswitchinterval(interval)
    assert all(module.training for module in learner.modules())
    assert torch.equal(copy.deepcopy(learner).adapt(tasks[0].support)(tasks[0].query.x), wanted[0])


def test_a_copy_made_while_others_adapt_has_the_learner_s_weights(make: Make, batch: Task) -> None:
    """Modules hold a task's weights while its predictor is at work."""
    learner, task = few_steps("maml", make), next(batch.unbatch())
    wanted = {k: v.clone() for k, v in learner.state_dict().items()}
    done = threading.Event()

    def adapting() -> None:
        while not done.is_set():
            learner.adapt(task.support)

    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(adapting)
        try:
            found = [copy.deepcopy(learner).state_dict() for _ in range(200)]
        finally:
            done.set()
        busy.result(timeout=30)
    for weights in found:
        assert weights.keys() == wanted.keys()
        assert all(torch.equal(weights[k], wanted[k]) for k in wanted)


def test_only_those_who_share_a_learner_wait_for_it(make: Make, batch: Task) -> None:
    learner, task = make("protonet"), next(batch.unbatch())
    others = {"another": make("protonet"), "a deep copy": copy.deepcopy(learner)}
    same = {"its predictor": learner.adapt(task.support), "a shallow copy": copy.copy(learner)}
    assert not [k for k in learner.state_dict() if "turn" in k]

    def use(which: Any) -> Tensor:
        return which(task.query.x) if isinstance(which, Predictor) else which.adapt(task.support).moments

    with ThreadPoolExecutor(4) as pool:
        with learner.in_use():
            for other in others.values():
                pool.submit(use, other).result(timeout=10)
            waiting = [pool.submit(use, one) for one in same.values()]
            assert not any(wait(waiting, timeout=0.2).done)
        assert all(future.result(timeout=10) is not None for future in waiting)


def test_dropout_is_off_in_use() -> None:
    """Also when the learner itself is still in training mode, whose flags come back as they were."""
    body = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.5), nn.ReLU())
    body.features = 16
    learner, x = MAML(body, way=2, steps=2), torch.randn(6, 4)
    body[2].eval()
    predictor = learner.adapt(x, torch.arange(6) % 2)
    assert torch.equal(predictor(x), predictor(x))
    assert torch.equal(predictor(x), learner.adapt(x, torch.arange(6) % 2)(x))
    assert [m.training for m in body] == [True, True, False]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.rand(4, 1, 16, 16), torch.tensor([0, 1, 2]), "4 examples but 3 labels"),
        (torch.full((3, 1, 16, 16), torch.nan), torch.tensor([0, 1, 2]), "NaN"),
        (torch.rand(3, 1, 16, 16), torch.tensor([0, 2, 2]), "class 1 has no example"),
    ],
)
def test_a_bad_support_set_is_refused(name: str, make: Make, x: Tensor, y: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make(name).adapt(x, y)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("norm", ["support", "batch"])
def test_padding_is_not_learned_from(name: str, norm: str, make: Make, batch: Task) -> None:
    learner, task = few_steps(name, make, norm), next(batch.unbatch())
    x, y = task.support.x, task.support.y
    mask = torch.arange(len(x) + 3) < len(x)
    padded = Support(torch.cat([x, torch.full((3, 1, 16, 16), torch.nan)]), F.pad(y, (0, 3)), 5, mask)
    predictor = learner.adapt(padded)
    assert predictor.way == 3
    assert torch.equal(predictor(task.query.x), learner.adapt(x, y)(task.query.x))


def test_a_support_set_is_checked_as_plain_tensors_are(make: Make) -> None:
    learner, x = make("protonet"), torch.rand(3, 1, 16, 16)
    assert learner.adapt(Support(x, torch.tensor([0, 1, 0]))).way == 2
    for support, message in (
        (Support(x, torch.tensor([0, 1])), "3 examples but 2 labels"),
        (Support(x * torch.nan, torch.tensor([0, 1, 0]), 2), "NaN"),
        (Support(x, torch.tensor([0, 2, 0]), 3), "class 1 has no example"),
        (Support(x, torch.tensor([0, 1, 2]), 2), "labels up to 2, but it states 2 ways"),
        (Support(x, torch.rand(3), 2), "real targets, but it states 2 ways"),
    ):
        with pytest.raises(DataError, match=message):
            learner.adapt(support)


@pytest.mark.parametrize("name", ALL)
def test_queries_that_are_no_numbers_are_refused(name: str, make: Make) -> None:
    predictor = few_steps(name, make).adapt(torch.rand(3, 1, 16, 16), torch.arange(3))
    for bad in (torch.nan, torch.inf):
        x = torch.rand(2, 1, 16, 16)
        x[1, 0, 3, 3] = bad
        for ask in (predictor, predictor.probabilities):
            with pytest.raises(DataError, match="inputs: an example holds NaN or infinity"):
                ask(x)


def test_queries_of_another_shape_are_refused(make: Make) -> None:
    predictor = make("maml").adapt(torch.rand(3, 1, 16, 16), torch.arange(3))
    for shape in ((2, 3, 16, 16), (2, 1, 28, 28), (1, 16, 16)):
        message = f"inputs of shape {shape}, but .* of shape (1, 16, 16): give [q, 1, 16, 16]"
        pattern = re.escape(message).replace(r"\.\*", ".*")
        with pytest.raises(DataError, match=pattern):
            predictor(torch.rand(shape))
    with pytest.raises(DataError, match="not numbers"):
        predictor("a picture")


def test_a_regression_has_no_probabilities() -> None:
    predictor = MAML(mlp(1), way=1).adapt([[0.0], [1.0]], [0.5, 1.5])
    assert predictor([[0.5]]).shape == (1, 1)
    with pytest.raises(DataError, match="no class probabilities"):
        predictor.probabilities([[0.5]])


@pytest.mark.parametrize("name", ALL)
def test_arrays_of_any_number_are_taken_in_the_learners_type(name: str, make: Make) -> None:
    rng = np.random.default_rng(0)
    pixels, y = rng.integers(0, 256, (6, 1, 16, 16)), np.arange(6) % 3
    # Short steps: of long ones the rounding of pixels grows.
    learner = few_steps(name, make, **({"inner_lr": 0.01} if name in DESCENDING else {})).float()
    wanted = learner.adapt(torch.from_numpy(pixels).float() / 255, torch.from_numpy(y))
    x = torch.rand(2, 1, 16, 16, dtype=torch.float64)
    for given in (pixels, pixels.astype(np.uint8), pixels / 255, torch.from_numpy(pixels / 255)):
        predictor = learner.adapt(given, y)
        torch.testing.assert_close(predictor(x.numpy()), wanted(x.float()), rtol=2e-3, atol=2e-3)
        assert predictor(x).dtype == torch.float32 or name == "pixel-nn"  # which has no type of its own


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("norm", ["support", "running"])
def test_a_predictor_keeps_nothing_of_the_callers(name: str, norm: str, make: Make) -> None:
    learner = make(name, norm, **({"blur": 0.0} if name == "pixel-nn" else {}))
    x, y, q = torch.rand(6, 1, 16, 16), torch.arange(6) % 3, torch.rand(4, 1, 16, 16)
    predictors = learner.adapt(x, y), learner.adapt(Support(x, y, 3))
    wanted = predictors[0](q)
    x.zero_()
    y.zero_()
    for predictor in predictors:
        assert torch.equal(predictor(q), wanted)


@pytest.mark.parametrize("name", [k for k in ALL if k != "pixel-nn"])
def test_inputs_go_to_the_learners_device(name: str, make: Make) -> None:
    """On torch's device without memory, where anything left on the CPU is an error."""
    learner = few_steps(name, make).to("meta")
    predictor = learner.adapt(torch.rand(6, 1, 16, 16), torch.arange(6) % 3)
    assert predictor(np.zeros((2, 1, 16, 16))).device.type == "meta"


def test_rows_are_drawn_on_the_cpu_and_moved(make: Make, batch: Task) -> None:
    learner = make("reptile")
    moved = learner.prepare(batch.to(torch.device("meta")), torch.Generator())
    assert moved.extra["rows"].device.type == "meta"


def test_labels_are_needed(make: Make) -> None:
    with pytest.raises(UserError, match="adapt needs labels"):
        make("maml").adapt(torch.rand(3, 1, 16, 16))
    x, y = torch.rand(3, 1, 16, 16), torch.arange(3)
    with pytest.raises(UserError, match="a Support holds its labels already"):
        make("maml").adapt(Support(x, y, 3), y)


@pytest.mark.parametrize("name", ALL)
def test_support_with_a_way_beyond_its_labels(name: str, make: Make) -> None:
    """A task may state more classes than its support set shows; who needs a prototype of each says which."""
    learner, x = few_steps(name, make), torch.rand(2, 1, 16, 16)
    support = replace(Support.of(x, torch.tensor([0, 1])), way=3)
    if learner.needs_every_class:
        with pytest.raises(DataError, match=r"class 2 has no example \(it states 3 ways\)"):
            learner.adapt(support)
    else:
        probabilities = learner.adapt(support).probabilities(x)
        assert probabilities.shape == (2, 3)
        close(probabilities.sum(1), torch.ones(2), name)


def test_what_a_net_fails_on_is_named(make: Make) -> None:
    with pytest.raises(UserError, match=r"the net failed on examples of shape \(16, 16\): [^\n]*16"):
        make("protonet").adapt(torch.rand(4, 16, 16), [0, 0, 1, 1])


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA"), RuntimeError("can't allocate memory: you")]
)
def test_too_little_memory_is_told_with_its_remedy(error: Exception) -> None:
    class Large(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise error

    with pytest.raises(UserError, match=r"too little memory for examples of shape \(3,\).*--meta-batch"):
        ProtoNet(Large()).adapt(torch.rand(2, 3), [0, 1])


@pytest.mark.parametrize(("fault", "told"), [("one\ntwo", "one"), ("", "RuntimeError")])
def test_a_nets_own_fault_is_told_in_one_line(fault: str, told: str) -> None:
    class Faulty(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError(fault)

    with pytest.raises(UserError) as error:
        ProtoNet(Faulty()).adapt(torch.rand(2, 3), [0, 1])
    assert str(error.value) == f"the net failed on examples of shape (3,): {told}"


def test_float_pictures_beyond_fractions_are_doubted(make: Make) -> None:
    x = torch.rand(4, 1, 16, 16)
    with pytest.warns(UserWarning, match="values up to 2.* uint8, or divide by 255"):
        make("protonet").adapt(255 * x, [0, 0, 1, 1])
    make("protonet").adapt((255 * x).to(torch.uint8), [0, 0, 1, 1])
    make("protonet").adapt(3 * (x - 0.5) * 2, [0, 0, 1, 1])  # standardised ones are meant so


def test_float_queries_of_another_scale_are_refused(make: Make) -> None:
    x = torch.rand(4, 1, 16, 16)
    predictor = make("protonet").adapt((255 * x).to(torch.uint8), [0, 0, 1, 1])
    with pytest.raises(DataError, match=r"values up to 2.* fractions, 0 to 1: give uint8, or divide by 255"):
        predictor(255 * x)
    predictor((255 * x).to(torch.uint8))
    assert predictor(x[:0]).shape == (0, 2)
    make("protonet").adapt(4 * x - 2, [0, 0, 1, 1])(8 * x)  # standardised ones may go anywhere


@pytest.mark.parametrize(
    ("name", "options"), [("lstm", {}), ("snail", {}), ("matching", {"full_context": True})]
)
def test_who_reads_in_order_reads_no_class_after_the_other(name: str, options: Any, make: Make) -> None:
    learner = make(name, "layer", **options)
    x, y = torch.rand(6, 1, 16, 16), torch.tensor([0, 0, 1, 1, 2, 2])
    read = []
    inner, learner.learn = learner.learn, lambda support: read.append(support) or inner(support)
    for order in (torch.arange(6), torch.tensor([2, 0, 4, 1, 5, 3])):
        learner.adapt(x[order], y[order])
    assert sorted(read[0].y.tolist()) == y.tolist() != read[0].y.tolist()
    for row, label in zip(read[0].x, read[0].y, strict=True):  # each keeps its label
        assert any(torch.equal(row, x[i].to(row.dtype)) and y[i] == label for i in range(6))
    assert torch.equal(read[1].y, y[torch.tensor([2, 0, 4, 1, 5, 3])])  # an order of the caller's own stays
