from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import UserError
from quickstudy.evaluation.fit import fit_picture, fits
from quickstudy.learners import CNP, MAML
from quickstudy.nets import conv4, mlp
from quickstudy.tasks import ClassTasks
from quickstudy.tasks.regression import Sinusoids


def test_fits_are_the_adapted_nets() -> None:
    learner, task = MAML(mlp(1, (8,)), way=1, inner_lr=0.01, steps=1), Sinusoids(shot=5).task(0)
    grid, found = fits(learner, task, steps=(0, 1))
    with torch.no_grad():
        torch.testing.assert_close(found["0 steps"].mean, learner.net(grid))
    torch.testing.assert_close(found["1 step"].mean, learner.adapt(task.support)(grid))
    assert found["1 step"].std is None
    assert grid[0] == torch.cat([task.support.x, task.query.x]).min()


def test_who_states_how_sure_it_is_has_a_band() -> None:
    learner, task = CNP(mlp(1, (8,)), way=1), Sinusoids(shot=5).task(0)
    grid, found = fits(learner, task)
    (fitted,) = found.values()
    answer = learner.adapt(task.support)(grid)  # [p, 2]
    torch.testing.assert_close(fitted.mean, answer[:, :1])
    torch.testing.assert_close(fitted.std, answer[:, 1:].exp())


def test_picture(tmp_path: Path) -> None:
    fit_picture(MAML(mlp(1), way=1, inner_lr=0.01), Sinusoids(shot=5, query=50).task(0), tmp_path / "fit.png")
    with Image.open(tmp_path / "fit.png") as image:
        drawn = np.asarray(image.convert("RGB")).reshape(-1, 3)
    for colour in ([0x25, 0x63, 0xA8], [0xC8, 0x37, 0x2D], [0x20, 0x26, 0x2E]):
        assert (drawn == colour).all(-1).sum() > 20


def test_not_of_pictures(blobs: ClassDataset) -> None:
    learner = MAML(conv4(4, size=16, blocks=2), way=3)
    with pytest.raises(UserError, match="functions of one number"):
        fits(learner, ClassTasks(blobs, 3, 2).task(0))
