"""Accuracy by presentation beside a plain loop over the learner's predictors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import TaskError, UserError
from quickstudy.evaluation import by_presentation
from quickstudy.evaluation.presentations import foresees
from quickstudy.learners import LSTMLearner, build
from quickstudy.nets import conv4
from quickstudy.tasks import ClassTasks, Support


@pytest.fixture
def learner() -> LSTMLearner:
    return LSTMLearner(conv4(4, size=16, blocks=2, norm="layer"), way=3, hidden=9)


def test_by_a_plain_loop(learner: LSTMLearner, blobs: ClassDataset) -> None:
    source = ClassTasks(blobs, 3, 1, query=3, seed=5)
    found = by_presentation(learner, source, 6)
    rows = []
    for i in range(6):
        task = source.task(i)
        batch = learner.prepare(source.batch(np.array([i])), torch.Generator().manual_seed(i))
        order = batch.extra["order"][0].argsort()
        x, y = (
            torch.cat([task.support.x, task.query.x])[order],
            torch.cat([task.support.y, task.query.y])[order],
        )
        hits: list[list[bool]] = [[] for _ in range(4)]
        for t in range(1, 12):  # the first of all is a first presentation
            k = int((y[:t] == y[t]).sum())
            answer = learner.learn(Support(x[:t], y[:t], 3))(x[t : t + 1]).argmax()
            hits[k].append(bool(answer == y[t]))
        rows.append([np.mean(row) for row in hits[1:]])
    assert found.accuracy[1:] == pytest.approx(np.mean(rows, 0))
    assert found.ci95[1:] == pytest.approx(1.96 * np.std(rows, 0, ddof=1) / 6**0.5)
    assert (len(found.accuracy), found.tasks) == (4, 6)


def test_portions_and_strategies_make_no_difference(learner: LSTMLearner, blobs: ClassDataset) -> None:
    source = ClassTasks(blobs, 3, 1, query=2)
    wanted = by_presentation(learner, source, 7)
    assert by_presentation(learner, source, 7, chunk=3) == wanted
    assert by_presentation(learner, source, 7, strategy="loop") == wanted


def test_who_reads_no_stream_is_refused(learner: LSTMLearner, blobs: ClassDataset) -> None:
    with pytest.raises(UserError, match="ProtoNet does not read a stream: mann and lstm do"):
        by_presentation(build("protonet", conv4(4, size=16), way=3, classes=8), ClassTasks(blobs, 3, 1), 2)
    with pytest.raises(TaskError, match="come equally often in every task"):
        by_presentation(learner, ClassTasks(blobs, 3, (1, 6), query=2), 12)


@pytest.mark.parametrize("norm", ["layer", "group", "none", "running", "support", "batch"])
def test_what_is_said_of_a_picture_depends_on_no_later_one(norm: str, blobs: ClassDataset) -> None:
    """And where it does, that is refused."""
    learner = LSTMLearner(conv4(4, size=16, blocks=2, norm=norm), way=3, hidden=9).eval()
    source = ClassTasks(blobs, 3, 1, query=2, seed=1)
    batch = learner.prepare(source.batch(np.array([0])), torch.Generator().manual_seed(0))
    task = next(batch.unbatch())
    order = task.extra["order"].argsort()
    other = [torch.cat([task.support.x, task.query.x])]
    other[0][order[5:]] = torch.rand(4, 1, 16, 16)
    changed = task.with_tensors(task.tensors() | {"support.x": other[0][:3], "query.x": other[0][3:]})
    said, again = (learner.stream(t)[0][:5] for t in (task, changed))
    assert torch.allclose(said, again, atol=1e-6) != foresees(learner)
    if foresees(learner):
        with pytest.raises(UserError, match=f"with {norm} statistics a picture is normalised by later ones"):
            by_presentation(learner, source, 2)
    else:
        assert by_presentation(learner, source, 2).tasks == 2
