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
from quickstudy.learners import MAML, ProtoNet, SemiProtoNet
from quickstudy.nets import conv4
from quickstudy.tasks import ClassTasks


def test_plane_is_that_of_principal_components() -> None:
    z, q = torch.randn(7, 5).double(), torch.randn(30, 5).double()
    place, shown = principal_plane(z)
    pca = PCA(2).fit(z.numpy())
    plane, wanted = place(q).numpy(), pca.transform(q.numpy())
    for i in range(2):
        sign = np.sign(plane[0, i] * wanted[0, i])
        np.testing.assert_allclose(sign * plane[:, i], wanted[:, i], atol=1e-10)
    assert shown == pytest.approx(pca.explained_variance_ratio_.sum())


def test_features_that_hardly_change_stay_where_they_are() -> None:
    z, q = torch.randn(9, 5).double(), torch.randn(30, 5).double()
    places = [principal_plane(z + 1e-6 * torch.randn(9, 5))[0](q) for _ in range(20)]
    for other in places[1:]:
        torch.testing.assert_close(other, places[0], atol=1e-3, rtol=0)


def test_one_dimension_and_no_variance() -> None:
    place, shown = principal_plane(torch.tensor([[1.0], [3.0]]))
    assert shown == pytest.approx(1)
    assert place(torch.tensor([[5.0]])).tolist() == [[3, 0]]
    place, shown = principal_plane(torch.ones(2, 3))
    assert (shown, place(torch.randn(4, 3)).abs().sum()) == (0, 0)


def test_the_map_is_of_the_bodys_features(blobs: ClassDataset, tmp_path: Path) -> None:
    """Of a float64 learner too, whose tasks are float32; and the picture has a colour a class."""
    learner = ProtoNet(conv4(4, size=16, blocks=2, norm="layer")).double()
    task = ClassTasks(blobs, 3, 2, query=4).task(0)
    found = mapped(learner, task)
    with torch.no_grad():
        z, q = (learner.body(part.x.double()) for part in (task.support, task.query))
    place, shown = principal_plane(torch.cat([z, q]))
    torch.testing.assert_close(found.support, place(z))
    torch.testing.assert_close(found.query, place(q))
    assert found.shown == shown
    map_picture(found, task, tmp_path / "map.png", ["a", "b", "c"])
    with Image.open(tmp_path / "map.png") as image:
        drawn = np.asarray(image.convert("RGB")).reshape(-1, 3)
    for colour in ([0x25, 0x63, 0xA8], [0xC8, 0x37, 0x2D], [0x2B, 0x8A, 0x57]):
        assert (drawn == colour).all(-1).sum() > 20


def test_unlabelled_examples_are_placed_where_they_are_used(blobs: ClassDataset) -> None:
    task = ClassTasks(blobs, 3, 1, query=4, unlabelled=2).task(0)
    assert task.support.unlabelled is not None
    body = conv4(4, size=16, blocks=2, norm="layer")
    found = mapped(SemiProtoNet(body), task)
    with torch.no_grad():
        z, q, u = (body(x) for x in (task.support.x, task.query.x, task.support.unlabelled))
    torch.testing.assert_close(found.unlabelled, principal_plane(torch.cat([z, q]))[0](u))
    assert mapped(ProtoNet(body), task).unlabelled is None


def test_only_of_learners_that_embed(blobs: ClassDataset) -> None:
    learner = MAML(conv4(4, size=16, blocks=2), way=3)
    with pytest.raises(UserError, match="embeds nothing that could be drawn"):
        mapped(learner, ClassTasks(blobs, 3, 2).task(0))
