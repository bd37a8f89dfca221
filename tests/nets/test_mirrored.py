from __future__ import annotations

import pytest
import torch
from torch import Tensor

from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import UserError
from quickstudy.inner import estimate
from quickstudy.learners import MAML, ProtoNet
from quickstudy.nets import Mirrored, conv4, mlp, resnet
from quickstudy.outer.config import TrainConfig
from quickstudy.tasks import ClassTasks

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("norm", ["layer", "none"])
def test_the_mean_of_both_sides(norm: str) -> None:
    plain, x = conv4(4, size=16, norm=norm), torch.rand(5, 1, 16, 16)
    body = Mirrored(plain)
    assert torch.equal(body(x), plain(x))  # in meta-training
    body.eval()
    torch.testing.assert_close(body(x), (plain(x) + plain(x.flip(-1))) / 2)
    torch.testing.assert_close(body(x), body(x.flip(-1)))
    assert (body.features, body.norm) == (plain.features, norm)


@pytest.mark.parametrize("strategy", ["loop", "vmap"])
@pytest.mark.parametrize("kind", ["protonet", "maml"])
def test_no_side_matters_to_a_learner(strategy: str, kind: str, blobs: ClassDataset) -> None:
    """By the support set's statistics, of both sides together; gradients too."""
    body = Mirrored(conv4(4, size=16))
    learner = ProtoNet(body) if kind == "protonet" else MAML(body, way=3, steps=2)
    learner.eval()
    batch = ClassTasks(blobs, 3, 2, query=2).batch(torch.arange(2).numpy()).to(torch.float64)

    def turned(x: Tensor) -> Tensor:
        return torch.where(torch.arange(x.shape[1])[:, None, None, None] % 2 == 0, x, x.flip(-1))

    other = batch.with_tensors(
        batch.tensors() | {k: turned(batch.tensors()[k]) for k in ("support.x", "query.x")}
    )
    (one, gradient), (two, again) = (estimate(learner, b, strategy) for b in (batch, other))
    torch.testing.assert_close(one.loss, two.loss)
    for name in gradient:
        torch.testing.assert_close(gradient[name], again[name])


def test_maps_are_refused() -> None:
    with pytest.raises(UserError, match="not maps of 4×4"):
        Mirrored(conv4(4, size=16, halvings=2))
    assert Mirrored(resnet((4, 4))).eval()(torch.rand(2, 1, 8, 8)).shape == (2, 4)
    assert Mirrored(mlp(16, (3,))).features == 3


def test_a_runs_option() -> None:
    config = TrainConfig(
        data="digits", way=3, size=16, channels=4, mirrored=True, norm="layer", augment="drawing"
    )
    learner, x = config.make_learner((1, 16, 16), 4), torch.rand(6, 1, 16, 16, dtype=torch.float32)
    predictor = learner.adapt(x, torch.arange(6) % 3)
    torch.testing.assert_close(predictor(x), predictor(x.flip(-1)))


def test_a_run_that_never_sees_a_mirrored_picture_is_refused() -> None:
    config = TrainConfig(data="digits", way=3, mirrored=True, augment="affine")
    with pytest.raises(UserError, match=r"mirrored is for --augment drawing.*, not affine"):
        config.training_tasks(config.splits().train)
