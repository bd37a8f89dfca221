"""What `meta_train` goes on with at a path, and refuses."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from quickstudy.data import ClassDataset
from quickstudy.errors import RunError
from quickstudy.inner import flat, implicit, neumann, truncated
from quickstudy.learners import ANIL, MAML, ProtoNet
from quickstudy.nets import conv4, mlp, native
from quickstudy.outer import RunFolder, meta_train
from quickstudy.tasks import ClassTasks
from quickstudy.tasks.regression import Sinusoids


def test_a_run_goes_on_by_the_same_inner_loop_only(tmp_path: Path) -> None:
    def go_on(**options: Any) -> None:
        learner = ANIL(mlp(1, (4,)), way=1, **options)
        meta_train(learner, Sinusoids(shot=3), iterations=1, meta_batch=2, run=tmp_path / "a")

    go_on(inner_lr=0.1)
    go_on(inner_lr=0.1)
    with pytest.raises(RunError, match=r"was begun with inner_lr=0\.1, not 5\.0"):
        go_on(inner_lr=5.0)
    with pytest.raises(RunError, match="was begun with inner_params=head, not body"):
        go_on(inner_lr=0.1, inner_params="body")


@pytest.mark.parametrize(
    ("begun", "other", "said"),
    [
        (truncated(2), truncated(1), r"gradient=truncated\(k=2\), not truncated\(k=1\)"),
        (partial(flat, keep=1), implicit(1.0), r"gradient=flat\(keep=1\), not implicit\(strength=1\.0"),
        (implicit(1.0), implicit(1.0, neumann(3)), r"conjugate_gradient\(iterations=5\).* not .*neumann\("),
    ],
)
def test_a_run_goes_on_by_the_same_method_only(begun: Any, other: Any, said: str, tmp_path: Path) -> None:
    def go_on(gradient: Any) -> None:
        learner = MAML(mlp(1, (4,)), way=1, steps=2, gradient=gradient)
        meta_train(learner, Sinusoids(shot=3), iterations=1, meta_batch=2, run=tmp_path / "a")

    go_on(begun)
    go_on(begun)
    with pytest.raises(RunError, match=f"was begun with .*{said}"):
        go_on(other)


def test_a_run_at_a_path_is_of_its_classes(tmp_path: Path, blobs: ClassDataset) -> None:
    def train(classes: list[int], iterations: int) -> int:
        tasks = ClassTasks(blobs.subset(classes), 3, 1, query=1)
        net = ProtoNet(conv4(2, size=16, blocks=2))
        return meta_train(net, tasks, iterations=iterations, run=tmp_path / "a").iteration

    train([0, 1, 2, 3], 1)
    with pytest.raises(RunError, match="was begun with fingerprint="):
        train([0, 1, 2, 4], 2)
    assert train([0, 1, 2, 3], 2) == 2


@pytest.mark.parametrize("first", [False, True])
def test_a_run_goes_on_with_the_kernels_it_was_begun_with(
    first: bool, blobs: ClassDataset, tmp_path: Path
) -> None:
    if not native.build():
        pytest.skip("no C compiler")

    def weights(iterations: int, run: str) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        learner = MAML(conv4(4, size=16, blocks=2), way=3, inner_lr=0.1, steps=2)
        tasks = ClassTasks(blobs, way=3, shot=1, query=2)
        meta_train(
            learner, tasks, iterations=iterations, meta_batch=3, schedule="constant", run=tmp_path / run
        )
        return learner.state_dict()

    with native.allowing(first):
        unbroken = weights(4, "unbroken")
        weights(2, "broken")
    broken = weights(4, "broken")
    assert RunFolder(tmp_path / "broken").config["kernels"] == ("native" if first else "torch")
    assert all(torch.equal(v, broken[k]) for k, v in unbroken.items())
