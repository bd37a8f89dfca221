"""What every learner keeps in memory: no graph in use, no step more than it needs in training."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import accumulate
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from quickstudy.data.dataset import ClassDataset
from quickstudy.inner import estimate, flat, map_tasks
from quickstudy.learners import Learner
from quickstudy.outer.measure import measure
from quickstudy.tasks import ClassTasks, Task

from .common import ALL, DESCENDING, Make, few_steps

pytestmark = pytest.mark.usefixtures("float64")


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
    events = profiled.profiler.kineto_results.events()
    return max(accumulate(e.nbytes() for e in events if e.name() == "[memory]"))


@pytest.mark.parametrize("name", DESCENDING)
def test_evaluations_memory_by_vmap_does_not_depend_on_the_steps(name: str, make: Make, batch: Task) -> None:
    def evaluated(learner: Learner) -> None:
        with torch.no_grad():
            map_tasks(lambda learner, task: learner.judge(task).metrics, learner, batch, "vmap")

    option = "test_steps" if name == "reptile" else "steps"
    learners = [make(name, **{option: steps}).eval() for steps in (2, 8)]
    few, many = (peak_bytes(lambda learner=learner: evaluated(learner)) for learner in learners)
    assert many < 1.05 * few
    if name == "maml":  # whose training must keep every step, so that the measure does see it
        few, many = (
            peak_bytes(lambda learner=learner: estimate(learner, batch, "vmap")) for learner in learners
        )
        assert many > 2 * few


@pytest.mark.parametrize("steps", [3, 5, 12])
def test_flat_memory_is_never_more_than_unrolled(steps: int, make: Make, batch: Task) -> None:
    task = batch.with_tensors({k: v[:1] for k, v in batch.tensors().items()})

    def most(gradient: Any) -> int:
        learner = make("maml", steps=steps)
        learner.gradient = gradient
        return peak_bytes(lambda: estimate(learner, task))

    wanted = most("unrolled")
    assert most("flat") <= 1.01 * wanted
    assert most(partial(flat, budget=0)) <= 1.01 * wanted


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


def test_a_learner_is_no_part_of_its_graph(make: Make, batch: Task) -> None:
    """After a meta-step nothing hangs on the learner: no graph, no moments, no gradient."""
    learner = make("maml", steps=2)
    with counting() as saved:
        estimate(learner, batch)
    gc.collect()
    assert saved.alive == 0
    assert all(p.grad is None and p.grad_fn is None for p in learner.parameters())
    assert all(b.grad_fn is None for b in learner.buffers())
