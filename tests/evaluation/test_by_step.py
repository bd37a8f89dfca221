from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import UserError
from quickstudy.evaluation.by_step import by_step, stepping, steps_picture
from quickstudy.learners import MAML, ProtoNet, build
from quickstudy.nets import conv4, mlp
from quickstudy.outer import measure
from quickstudy.tasks import ClassTasks
from quickstudy.tasks.regression import Lines

pytestmark = pytest.mark.usefixtures("float64")


def naive(learner: MAML, steps: int, n_tasks: int) -> float:
    """The mean squared error after some steps of plain gradient descent."""
    errors = []
    for task in Lines(shot=4, query=5).batch(np.arange(n_tasks)).unbatch():
        weights = {k: p.detach().double().requires_grad_() for k, p in learner.net.named_parameters()}
        x, y = task.support.x.double(), task.support.y.double()
        for _ in range(steps):
            loss = (torch.func.functional_call(learner.net, weights, (x,)) - y).square().mean()
            grads = torch.autograd.grad(loss, list(weights.values()))
            weights = {
                k: (p - learner.inner_lr * g).detach().requires_grad_()
                for (k, p), g in zip(weights.items(), grads, strict=True)
            }
        found = torch.func.functional_call(learner.net, weights, (task.query.x.double(),)).detach()
        errors.append(float((found - task.query.y).square().mean()))
    return float(np.mean(errors))


def test_error_by_step_is_that_of_descent() -> None:
    learner = MAML(mlp(1, (6,)), way=1, inner_lr=0.02, steps=1, test_steps=4).double()
    found = by_step(learner, Lines(shot=4, query=5), 6, steps=(0, 1, 7))
    for count, measured in found.items():
        assert measured.mean("loss") == pytest.approx(naive(learner, count, 6), rel=1e-5)
    assert learner.test_steps == 4


@pytest.mark.parametrize("name", ["maml", "anil", "imaml", "maml++", "proto-maml", "reptile"])
@pytest.mark.parametrize("norm", ["support", "batch"])
def test_one_descent_finds_what_a_descent_for_each_number_finds(
    name: str, norm: str, blobs: ClassDataset
) -> None:
    learner = build(name, conv4(4, size=16, blocks=2, norm=norm), way=3, classes=8, settings={"steps": 2})
    source, counts = ClassTasks(blobs, 3, 1, 2, seed=1), (0, 1, 2, 4)
    found = by_step(learner, source, 3, steps=counts)
    for count in counts:
        with stepping(learner, count):
            wanted = measure(learner, source, 3)
        for metric, values in wanted.values.items():
            torch.testing.assert_close(found[count].values[metric], values)


def test_only_of_learners_that_descend(blobs: ClassDataset) -> None:
    with pytest.raises(UserError, match="ProtoNet takes no inner steps"):
        by_step(ProtoNet(conv4(4, size=16, blocks=2)), ClassTasks(blobs, 3, 1), 2)


def test_steps_are_put_back_after_a_failure() -> None:
    learner = MAML(mlp(1), way=1, test_steps=None)
    with pytest.raises(RuntimeError), stepping(learner, 3):
        raise RuntimeError
    assert learner.test_steps is None


def test_picture(tmp_path: Path) -> None:
    learner = MAML(mlp(1, (6,)), way=1, inner_lr=0.02)
    found = by_step(learner, Lines(shot=4, query=5), 6, steps=(0, 5))
    assert found[5].mean("loss") == measure_at(learner, 5)
    steps_picture(found, 1, tmp_path / "steps.png")
    with Image.open(tmp_path / "steps.png") as image:
        drawn = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert (drawn == [0x25, 0x63, 0xA8]).all(-1).sum() > 100  # the curve


def measure_at(learner: MAML, steps: int) -> float:
    with stepping(learner, steps):
        return measure(learner, Lines(shot=4, query=5), 6).mean("loss")
