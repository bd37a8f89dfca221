"""What every learner promises, whatever its method."""

from __future__ import annotations

import copy
import gc
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import DataError, UserError
from quickstudy.inner import estimate, map_tasks
from quickstudy.learners import CONTROLS, LEARNERS, MAML, Learner, PixelNN, Predictor, ProtoNet
from quickstudy.learners.base import task_loss, width
from quickstudy.nets import BatchNorm, mlp
from quickstudy.outer.measure import measure
from quickstudy.tasks import ClassTasks, SupervisedBatches, Support, Task

pytestmark = pytest.mark.usefixtures("float64")

Make = Callable[..., Learner]
ALL = [*LEARNERS, *CONTROLS]
DESCENDING = ["maml", "fomaml", "anil", "reptile", "proto-maml", "scratch", "pretrain-finetune"]


def few_steps(name: str, make: Make, norm: str = "support") -> Learner:
    """A learner that adapts in few steps, so that many can be tried."""
    options = {"reptile": {"steps": 3, "test_steps": 3, "inner_batch": 6}}.get(name, {})
    return make(name, norm, **(options or ({"steps": 3} if name in DESCENDING else {})))


def close(a: Tensor, b: Tensor, what: str, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, msg=lambda m: f"{what}: {m}")


# -- the map over tasks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("norm", ["support", "batch", "running", "group", "layer", "none"])
def test_vmap_equals_the_loop_over_tasks(name: str, norm: str, make: Make, batch: Task) -> None:
    learner = few_steps(name, make, norm)
    prepared = learner.prepare(batch, torch.Generator().manual_seed(0))
    (loop, loop_gradient), (vmap, vmap_gradient) = (estimate(learner, prepared, s) for s in ("loop", "vmap"))
    # Adam without momentum divides mere rounding by its own size where a bias has no influence.
    tolerance = 1e-8 if name == "reptile" else 1e-10
    close(vmap.loss, loop.loss, "loss", tolerance)
    for ours, theirs in (
        (vmap.metrics, loop.metrics),
        (vmap.stats, loop.stats),
        (vmap_gradient, loop_gradient),
    ):
        assert ours.keys() == theirs.keys()
        for k in ours:
            close(ours[k], theirs[k], k, tolerance)
    assert bool(loop.stats) == (norm in ("support", "batch", "running"))


@pytest.mark.parametrize("name", ALL)
def test_evaluation_by_vmap_equals_the_loop(name: str, make: Make, batch: Task) -> None:
    learner = few_steps(name, make).eval()
    with torch.no_grad():
        loop, vmap = (map_tasks(lambda task: learner.judge(task).metrics, batch, s) for s in ("loop", "vmap"))  # type: ignore[arg-type]
    assert set(loop) == {"loss", "accuracy"}
    for k in loop:
        close(vmap[k], loop[k], k)


@pytest.mark.parametrize("name", ["pretrain-finetune", "pretrain-centroid"])
def test_pretraining_by_vmap_equals_the_loop(name: str, make: Make, blobs: ClassDataset) -> None:
    learner, batch = make(name), SupervisedBatches(blobs, size=12).batch(np.arange(2)).to(torch.float64)
    (loop, loop_gradient), (vmap, vmap_gradient) = (estimate(learner, batch, s) for s in ("loop", "vmap"))
    close(vmap.loss, loop.loss, "loss")
    for k in loop_gradient:
        close(vmap_gradient[k], loop_gradient[k], k)


# -- adapting ---------------------------------------------------------------------------------------------


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
    for option in learner.settings()[-1:]:
        for k, v in option.items():
            setattr(learner, k, v + 1)
    learner.eval()
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


@pytest.mark.parametrize("name", ALL)
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
    body.features = 16  # type: ignore[assignment]
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
    learner = few_steps(name, make).float()
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


# -- transduction -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("norm", ["support", "batch", "running", "group", "layer", "none"])
def test_transductive_is_declared_exactly_where_it_is(name: str, norm: str, make: Make, batch: Task) -> None:
    learner, task = few_steps(name, make, norm), next(batch.unbatch())
    predictor = learner.adapt(task.support)
    together = predictor(task.query.x)
    apart = torch.cat([predictor(x[None]) for x in task.query.x])
    depends = (together - apart).abs().max() > 1e-6
    assert (
        bool(depends)
        == predictor.transductive
        == learner.transductive
        == (norm == "batch" and name != "pixel-nn")
    )


@pytest.mark.parametrize("name", LEARNERS)
def test_each_mode_can_be_chosen_after_training(name: str, make: Make, batch: Task) -> None:
    learner, task = few_steps(name, make), next(batch.unbatch())
    assert learner.modes == ["support", "running", "batch"]
    outputs = []
    for mode in learner.modes:
        learner.statistics = mode
        outputs.append(learner.adapt(task.support)(task.query.x))
    for i in range(3):
        assert not torch.allclose(outputs[i], outputs[i - 1])
    assert make(name, "layer").modes == []


def test_running_averages_move_by_a_twentieth(make: Make, batch: Task) -> None:
    learner = make("protonet")
    before = {k: v.clone() for k, v in learner.named_buffers()}
    outcome, gradient = estimate(learner, batch)
    learner.after_step({k: v.mean(0) for k, v in outcome.stats.items()}, gradient, 0.0)
    means = []
    for task in batch.unbatch():  # the moments of the first layer by hand
        z = learner.body[0].conv(task.support.x)
        means.append((z.mean((0, 2, 3)), z.var((0, 2, 3), unbiased=False)))
    after = dict(learner.named_buffers())
    for i, k in enumerate(("body.0.norm.mean", "body.0.norm.var")):
        close(after[k], 0.95 * before[k] + 0.05 * torch.stack([m[i] for m in means]).mean(0).detach(), k)


def test_a_net_that_normalises_its_own_way_is_refused() -> None:
    for track in (True, False):
        body = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=track))
        with pytest.raises(UserError, match=r"layer '1' .*convert_batch_norm"):
            ProtoNet(body)
    body = nn.Sequential(nn.Conv1d(1, 3, 1), nn.InstanceNorm1d(3, track_running_stats=True))
    with pytest.raises(UserError, match=r"layer '1' writes running averages .*track_running_stats=False"):
        ProtoNet(body)
    assert ProtoNet(nn.InstanceNorm1d(3)).modes == []


def test_a_body_says_how_many_features_it_has() -> None:
    assert width(mlp(3, (7,))) == 7
    with pytest.raises(UserError, match="Linear does not say how many features it returns"):
        width(nn.Linear(3, 4))


@pytest.mark.parametrize("rate", [-0.1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", [*DESCENDING, "pixel-nn"])
def test_a_rate_is_finite_and_not_below_zero(name: str, rate: float, make: Make) -> None:
    option = "blur" if name == "pixel-nn" else "inner_lr"
    with pytest.raises(UserError, match=f"^{option} must be at least 0 and finite, not {rate}"):
        make(name, **{option: rate})
    make(name, **{option: 0.0})


def test_task_loss() -> None:
    logits, y = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0])
    close(task_loss(logits, y), -logits.log_softmax(1)[torch.arange(5), y].mean(), "cross-entropy")
    target = torch.randn(5, 3)
    close(task_loss(logits, target), ((logits - target) ** 2).mean(), "squared error")


# -- memory -----------------------------------------------------------------------------------------------


class Saved:
    """A tensor that a graph keeps for the way back; counted while it lives."""

    alive = peak = 0

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()  # what a node made would keep that node alive in a circle
        Saved.alive += 1
        Saved.peak = max(Saved.peak, Saved.alive)

    def __del__(self) -> None:
        Saved.alive -= 1


@contextmanager
def counting() -> Iterator[type[Saved]]:
    Saved.alive = Saved.peak = 0
    with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
        yield Saved


@pytest.mark.parametrize("name", DESCENDING)
def test_evaluations_memory_does_not_depend_on_the_steps(name: str, make: Make, batch: Task) -> None:
    task, peaks = next(batch.unbatch()), []
    for steps in (1, 6):
        learner = make(name, **{"test_steps" if name == "reptile" else "steps": steps}).eval()
        with counting() as saved:
            with torch.no_grad():
                learner.judge(task)
            learner.adapt(task.support)(task.query.x)
        gc.collect()
        assert saved.alive == 0
        peaks.append(saved.peak)
    assert peaks[0] == peaks[1] > 0


@pytest.mark.parametrize("name", ["maml", "fomaml"])
def test_only_second_order_training_keeps_every_step(name: str, make: Make, batch: Task) -> None:
    """The counter above does count: here the graph of each step must live until the way back."""
    peaks = []
    for steps in (1, 6):
        with counting() as saved:
            estimate(make(name, steps=steps), batch)
        peaks.append(saved.peak)
    if name == "maml":
        assert peaks[1] > 3 * peaks[0]
    else:
        assert peaks[1] == peaks[0]


def peak_bytes(function: Callable[[], object]) -> int:
    """The most that a function's tensors take at once, also those that only torch.func holds."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        function()
    events = profiled.profiler.kineto_results.events()  # type: ignore[union-attr]
    return max(accumulate(e.nbytes() for e in events if e.name() == "[memory]"))


@pytest.mark.parametrize("name", DESCENDING)
def test_evaluations_memory_by_vmap_does_not_depend_on_the_steps(name: str, make: Make, batch: Task) -> None:
    def evaluated(learner: Learner) -> None:
        with torch.no_grad():
            map_tasks(lambda task: learner.judge(task).metrics, batch, "vmap")

    option = "test_steps" if name == "reptile" else "steps"
    learners = [make(name, **{option: steps}).eval() for steps in (2, 8)]
    few, many = (peak_bytes(lambda learner=learner: evaluated(learner)) for learner in learners)
    assert many < 1.05 * few
    if name == "maml":  # whose training must keep every step, so that the measure does see it
        few, many = (
            peak_bytes(lambda learner=learner: estimate(learner, batch, "vmap")) for learner in learners
        )
        assert many > 2 * few


@pytest.mark.parametrize("name", ALL)
def test_evaluation_in_a_loop_builds_no_second_order_graph(
    name: str, make: Make, blobs: ClassDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    real = torch.autograd.grad

    def spy(*args: Any, create_graph: bool = False, **options: Any) -> Any:
        asked.append(create_graph)
        return real(*args, create_graph=create_graph, **options)

    monkeypatch.setattr(torch.autograd, "grad", spy)
    learner = few_steps(name, make).float()
    measured = measure(learner, ClassTasks(blobs, 3, 1, query=2), 2, strategy="loop")
    assert asked == [False] * (6 if name in DESCENDING else 0)  # three steps of two tasks
    assert all(v.grad_fn is None for v in measured.values.values())


@pytest.mark.parametrize("name", LEARNERS)
def test_memory_does_not_grow_over_meta_steps(name: str, make: Make, blobs: ClassDataset) -> None:
    learner = few_steps(name, make)
    source = ClassTasks(blobs, 3, 1, query=2)
    optimizer = torch.optim.SGD(learner.parameters(), 1e-3)

    def meta_steps(n: int) -> int:
        for i in range(n):
            batch = source.batch(np.arange(1)).to(torch.float64)
            prepared = learner.prepare(batch, torch.Generator().manual_seed(i))
            outcome, gradient = estimate(learner, prepared, ("loop", "vmap")[i % 2])  # type: ignore[arg-type]
            for k, p in learner.named_parameters():
                p.grad = gradient[k]
            optimizer.step()
            learner.after_step({k: v.mean(0) for k, v in outcome.stats.items()}, gradient, 0.0)
        optimizer.zero_grad()
        del batch, prepared, outcome, gradient, p
        gc.collect()
        return sum(issubclass(type(o), Tensor) for o in gc.get_objects())

    gc.collect()
    gc.freeze()  # what was there before need not be looked through
    try:
        kept = [torch.zeros(1)]  # this one is found
        assert meta_steps(2) == meta_steps(20) == len(kept)
    finally:
        gc.unfreeze()


def test_a_learner_is_no_part_of_its_graph(make: Make, batch: Task) -> None:
    """After a meta-step nothing hangs on the learner: no graph, no moments, no gradient."""
    learner = make("maml", steps=2)
    with counting() as saved:
        estimate(learner, batch)
    gc.collect()
    assert saved.alive == 0
    assert all(p.grad is None and p.grad_fn is None for p in learner.parameters())
    assert all(b.grad_fn is None for b in learner.buffers())


def test_the_forward_pass_on_padded_tasks_is_refused_nowhere(make: Make, blobs: ClassDataset) -> None:
    """Ragged tasks reach a learner one by one, without padding."""
    source = ClassTasks(blobs, (2, 3), (1, 3), query=2, ragged=True)
    learner = make("maml")
    batch = source.batch(np.arange(4)).to(torch.float64)
    outcome, _ = estimate(learner, batch, "vmap")
    for i in range(4):
        close(outcome.loss[i], learner(source.task(i).to(torch.float64)).loss.detach(), f"task {i}")


@pytest.mark.parametrize("name", ALL)
def test_support_with_a_way_beyond_its_labels(name: str, make: Make) -> None:
    """A task may state more classes than its support set shows; who needs a prototype of each says which."""
    learner, x = few_steps(name, make), torch.rand(2, 1, 16, 16)
    support = replace(Support.of(x, torch.tensor([0, 1])), way=3)
    if name in ("protonet", "proto-maml", "untrained", "pretrain-centroid"):
        with pytest.raises(DataError, match=r"class 2 has no example \(it states 3 ways\)"):
            learner.adapt(support)
    else:
        probabilities = learner.adapt(support).probabilities(x)
        assert probabilities.shape == (2, 3)
        close(probabilities.sum(1), torch.ones(2), name)


def test_pixel_nn_has_nothing_to_train() -> None:
    assert list(PixelNN().parameters()) == []
    assert not any(isinstance(m, BatchNorm) for m in PixelNN().modules())


# -- pictures of another kind than the net's --------------------------------------------------------------


def test_what_a_net_fails_on_is_named(make: Make) -> None:
    with pytest.raises(UserError, match=r"the net failed on examples of shape \(16, 16\): [^\n]*16"):
        make("protonet").adapt(torch.rand(4, 16, 16), [0, 0, 1, 1])


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
