from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import UserError
from quickstudy.inner import map_tasks
from quickstudy.inner.below import inside_map
from quickstudy.inner.gradient import gradient
from quickstudy.inner.rules import Params
from quickstudy.tasks import ClassTasks, Task


def mapped(function: Callable[[Task], dict[str, Tensor]], batch: Task, strategy: str) -> dict[str, Tensor]:
    return map_tasks(lambda net, task: function(task), nn.Identity(), batch, strategy)


def summary(task: Task) -> dict[str, Tensor]:
    """Something of every part of a task, that a mix-up of tasks or padding would change."""
    assert task.classes is not None
    assert not task.padded
    return {
        "support": (task.support.x.flatten(1).mean(1) * (1 + task.support.y)).sum(),
        "query": (task.query.x.flatten(1).mean(1) * (1 + task.query.y)).sum(),
        "classes": task.classes.sum() * 10 + task.support.ways,
        "noise": task.extra["noise"] * 2,
    }


def batch_of(source: ClassTasks, tasks: int) -> Task:
    batch = source.batch(np.arange(tasks))
    return Task(batch.support, batch.query, batch.classes, {"noise": torch.rand(tasks, 3)})


def test_loop_and_vmap_equal_the_plain_loop(blobs: ClassDataset) -> None:
    batch = batch_of(ClassTasks(blobs, 4, 2, query=3), 6)
    wanted = [summary(task) for task in batch.unbatch()]
    for strategy in ("loop", "threads", "vmap"):
        found = mapped(summary, batch, strategy)
        assert found["noise"].shape == (6, 3)
        for t, one in enumerate(wanted):
            for k in one:
                torch.testing.assert_close(found[k][t], one[k])


@pytest.mark.parametrize("strategy", ["loop", "threads", "vmap"])
def test_padding_is_taken_out_first(blobs: ClassDataset, strategy: str) -> None:
    source = ClassTasks(blobs, (2, 5), (1, 4), query=2)
    batch = batch_of(source, 8)
    assert batch.padded
    found = mapped(summary, batch, strategy)
    for t in range(8):
        alone = source.task(t)
        one = summary(Task(alone.support, alone.query, alone.classes, {"noise": batch.extra["noise"][t]}))
        for k in one:
            torch.testing.assert_close(found[k][t], one[k])


def test_only_vmap_is_marked(blobs: ClassDataset) -> None:
    batch, seen = batch_of(ClassTasks(blobs, 2, 1, query=1), 2), []

    def note(task: Task) -> dict[str, Tensor]:
        seen.append(inside_map())
        return {"x": task.query.x.sum()}

    mapped(note, batch, "vmap")
    mapped(note, batch, "loop")
    assert seen == [True, False, False]
    with pytest.raises(ZeroDivisionError):
        mapped(lambda task: {"x": torch.tensor(1 // 0)}, batch, "vmap")
    assert not inside_map()


def test_each_task_draws_its_own(blobs: ClassDataset) -> None:
    batch = batch_of(ClassTasks(blobs, 3, 1, query=2), 5)
    for strategy in ("loop", "threads", "vmap"):
        drawn = mapped(lambda task: {"u": torch.rand(4).to(task.support.x)}, batch, strategy)["u"]
        assert drawn.shape == (5, 4)
        assert len(drawn.unique()) == 20


RECURRENT = {kind: getattr(torch.nn, kind)(256, 2) for kind in ("LSTM", "GRU", "RNN")}


def tuned(net: torch.nn.Module) -> Callable[[Tensor], Tensor]:
    """The gradient by the net's weights, where torch's error is another and does not speak of vmap."""

    def function(x: Tensor) -> Tensor:
        def loss(params: Params) -> Tensor:
            return torch.func.functional_call(net, params, (x.flatten(1)[None],))[0].sum()

        return gradient(loss, dict(net.named_parameters()), create_graph=False)[0]

    return function


def looks(x: Tensor) -> Tensor:
    return x if x.sum() > 0 else -x


def adds_up(x: Tensor) -> Tensor:
    total = torch.zeros(())
    total += x.sum()
    return total


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (looks, "it decides by a tensor's values, as with `if`"),
        (lambda x: x * x.sum().item(), r"it takes a number out of a tensor, by \.item\(\) or float"),
        (lambda x: x[x > 0].sum(), "how much it computes depends on values, as with a mask"),
        (lambda x: (x > 0).nonzero().sum(), "how much it computes depends on values"),
        (lambda x: x * sum(x.flatten().tolist()), "it hands a tensor to NumPy or Python"),
        (adds_up, "it writes to a tensor that is the same for all tasks"),
        *(
            (lambda x, net=net: net(x.flatten(1)[None])[0], rf"it uses {name.lower()}\w*, for which torch")
            for name, net in RECURRENT.items()
        ),
        (tuned(RECURRENT["GRU"]), "it uses gru, for which torch has no rule"),
        (tuned(RECURRENT["RNN"]), "it uses rnn_tanh, for which torch has no rule"),
    ],
    ids=["if", "item", "mask", "nonzero", "tolist", "in place", *RECURRENT, "tuned GRU", "tuned RNN"],
)
def test_what_cannot_be_vectorised_says_why_and_names_the_loop(
    function: Callable[[Tensor], Tensor], why: str, blobs: ClassDataset
) -> None:
    batch = batch_of(ClassTasks(blobs, 3, 1, query=2), 2)
    with pytest.raises(UserError, match=rf'over tasks: {why}.*; use strategy="loop"'):
        mapped(lambda task: {"a": function(task.support.x)}, batch, "vmap")
    assert len(mapped(lambda task: {"a": function(task.support.x)}, batch, "loop")["a"]) == 2


def test_a_fault_in_the_net_is_told_as_it_is(blobs: ClassDataset) -> None:
    batch = batch_of(ClassTasks(blobs, 3, 1, query=2), 2)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        mapped(lambda task: {"a": task.support.x.flatten(1) @ torch.ones(3, 3)}, batch, "vmap")


def test_too_little_memory_is_told_as_it_is(blobs: ClassDataset) -> None:
    def greedy(task: Task) -> dict[str, Tensor]:
        if inside_map():
            raise torch.OutOfMemoryError("out of memory")
        raise AssertionError("tried again")

    with pytest.raises(torch.OutOfMemoryError):
        mapped(greedy, batch_of(ClassTasks(blobs, 3, 1, query=2), 2), "vmap")
