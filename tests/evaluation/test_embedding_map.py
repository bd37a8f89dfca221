from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.decomposition import PCA

from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import UserError
from quickstudy.evaluation.embedding_map import map_picture, mapped, principal_plane
from quickstudy.learners import MAML, ProtoNet
from quickstudy.nets import conv4
from quickstudy.tasks import ClassTasks


def test_plane_is_that_of_principal_components() -> None:
    z, q = torch.randn(7, 5).double(), torch.randn(30, 5).double()
    found = principal_plane(z, q)
    pca = PCA(2).fit(torch.cat([z, q]).numpy())
    wanted = pca.transform(torch.cat([z, q]).numpy())
    plane = torch.cat([found.support, found.query]).numpy()
    for i in range(2):
        sign = np.sign(plane[0, i] * wanted[0, i])
        np.testing.assert_allclose(sign * plane[:, i], wanted[:, i], atol=1e-10)
    assert found.shown == pytest.approx(pca.explained_variance_ratio_.sum())


def test_one_dimension_and_no_variance() -> None:
    found = principal_plane(torch.tensor([[1.0]]), torch.tensor([[3.0]]))
    assert found.shown == pytest.approx(1)
    assert found.support[0, 1] == 0
    assert principal_plane(torch.zeros(2, 3), torch.zeros(2, 3)).shown == 0


def test_of_a_task_the_prototypes_are_means(blobs: ClassDataset, tmp_path: Path) -> None:
    """Distances on the plane are at most those in the space, and the picture has a colour a class."""
    learner, task = ProtoNet(conv4(4, size=16, blocks=2)), ClassTasks(blobs, 3, 2, query=4).task(0)
    found = mapped(learner, task)
    with torch.no_grad():
        z, embed, _ = learner.eval().embedded(task.support)
        apart = torch.cdist(embed(task.query.x), z)
    assert (torch.cdist(found.query, found.support) <= apart + 1e-4).all()
    map_picture(found, task, tmp_path / "map.png", ["a", "b", "c"])
    with Image.open(tmp_path / "map.png") as image:
        drawn = np.asarray(image.convert("RGB")).reshape(-1, 3)
    for colour in ([0x25, 0x63, 0xA8], [0xC8, 0x37, 0x2D], [0x2B, 0x8A, 0x57]):
        assert (drawn == colour).all(-1).sum() > 20


def test_only_of_learners_that_embed(blobs: ClassDataset) -> None:
    learner = MAML(conv4(4, size=16, blocks=2), way=3)
    with pytest.raises(UserError, match="compares nothing in an embedding"):
        mapped(learner, ClassTasks(blobs, 3, 2).task(0))
