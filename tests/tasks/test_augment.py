from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import TaskError, UserError
from quickstudy.tasks import AUGMENTATIONS, Augmented, ClassTasks, Distortion, Sinusoids, SupervisedBatches
from quickstudy.tasks.augment import DRAWN, POINTS, distorted, penned

TURN, SHEAR, WIDE, HIGH, RIGHT, DOWN, PEN, FLIP = range(8)
SIZE = 12


def ink() -> Tensor:
    """A picture `[1, 1, 12, 12]` with nothing near its edges."""
    x = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.float64)
    x[..., 4:8, 4:8] = torch.rand(4, 4, dtype=torch.float64)
    return x


def chance(**numbers: float) -> Tensor:
    """Uniform numbers that change nothing, but for these, from −1 to 1."""
    u = torch.full((1, DRAWN), 0.5, dtype=torch.float64)
    u[0, FLIP] = 0.99
    for name, value in numbers.items():
        u[0, globals()[name.upper()]] = (value + 1) / 2
    return u


def test_a_quarter_turn() -> None:
    x = ink()
    found = distorted(x, chance(turn=1), Distortion(turn=90))
    torch.testing.assert_close(found, torch.rot90(x, 1, (-2, -1)), atol=1e-12, rtol=0)


def test_mirrored() -> None:
    x, u = ink(), chance()
    u[0, FLIP] = 0.2
    torch.testing.assert_close(distorted(x, u, Distortion(flip=0.3)), x.flip(-1), atol=1e-12, rtol=0)
    torch.testing.assert_close(distorted(x, u, Distortion(flip=0.1)), x, atol=1e-12, rtol=0)


def test_shifted_by_whole_pixels() -> None:
    x = ink()
    found = distorted(x, chance(right=-0.5, down=1), Distortion(shift=4 / SIZE))
    torch.testing.assert_close(found, x.roll((-4, 2), (-2, -1)), atol=1e-12, rtol=0)


def test_half_as_wide() -> None:
    x = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.float64)
    x[..., 2:10, 2:10] = 1.0
    found = distorted(x, chance(wide=1), Distortion(scale=1.0))
    wanted = torch.zeros_like(x)
    wanted[..., 2:10, 4:8] = 1.0
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=0)


def test_sheared_by_the_tangent() -> None:
    """A pixel `d` rows below the middle comes from `d · tan(shear)` columns to its right."""
    x = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    x[..., 4] = 1.0
    found = distorted(x, chance(shear=1), Distortion(shear=45))[0, 0]
    for row in range(2, 7):
        assert found[row].argmax() == 4 - (row - 4)


def test_bent_by_one_amount_is_shifted() -> None:
    x, u = ink(), chance()
    u[0, 8 : 8 + POINTS**2] = 1.0
    found = distorted(x, u, Distortion(bend=2 / SIZE))
    torch.testing.assert_close(found, x.roll(-2, -1), atol=1e-10, rtol=0)


@pytest.mark.parametrize("pen", [1.0, -1.0, 0.25, -0.5])
def test_pen_beside_a_naive_loop(pen: float) -> None:
    x = ink()[0, 0]
    wanted = torch.empty_like(x)
    for i in range(SIZE):
        for j in range(SIZE):
            around = x[max(0, i - 1) : i + 2, max(0, j - 1) : j + 2]
            other = around.max() if pen > 0 else around.min()
            wanted[i, j] = (1 - abs(pen)) * x[i, j] + abs(pen) * other
    for sign in (1, -1):  # light ink, dark ink
        found = penned(sign * x[None, None], torch.tensor([pen], dtype=torch.float64))
        torch.testing.assert_close(sign * found[0, 0], wanted)


@given(st.integers(0, 1000))
def test_dark_ink_as_light_ink(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, u = ink(), torch.rand(1, DRAWN, generator=generator, dtype=torch.float64)
    light = distorted(x, u, AUGMENTATIONS["drawing"])
    dark = distorted(1 - x, u, AUGMENTATIONS["drawing"])
    torch.testing.assert_close(dark, 1 - light, atol=1e-12, rtol=0)


@pytest.mark.parametrize("how", AUGMENTATIONS)
def test_small(how: str) -> None:
    """A named augmentation leaves a picture its middle and most of its ink."""
    yy, xx = torch.meshgrid(*[torch.linspace(-1, 1, 28, dtype=torch.float64)] * 2, indexing="ij")
    blob = torch.exp(-8 * (yy**2 + xx**2))[None, None]
    u = torch.rand(200, DRAWN, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = distorted(blob.expand(200, -1, -1, -1), u, AUGMENTATIONS[how])
    mass = found.sum((1, 2, 3))
    assert (mass / blob.sum()).log().abs().max() < math.log(2.6)
    middle = (found * xx).sum((1, 2, 3)) / mass
    assert middle.abs().max() < 0.5
    assert middle.std() > 0.05


def test_tasks_are_pure_functions_of_their_number(blobs: ClassDataset) -> None:
    tasks = ClassTasks(blobs, 3, 2, 2, seed=1, unlabelled=1)
    how = Augmented(tasks, "drawing", seed=4)
    batch, one = how.batch(np.array([5, 9])), how.batch(np.array([9]))
    plain = tasks.batch(np.array([5, 9]))
    for name, found in batch.tensors().items():
        assert torch.equal(found[1:], one.tensors()[name]), name
        assert torch.equal(found, plain.tensors()[name]) != name.endswith(("x", "unlabelled")), name
    other = Augmented(tasks, "drawing", seed=5).batch(np.array([9]))
    assert not torch.equal(other.support.x, one.support.x)


def test_each_picture_by_itself() -> None:
    data = ClassDataset.from_arrays(np.tile(np.eye(8, dtype=np.uint8) * 255, (12, 1, 1)), np.arange(12) % 3)
    x = Augmented(ClassTasks(data, 3, 2, 2), Distortion(turn=90)).batch(np.arange(2)).support.x.flatten(0, 1)
    assert len(x.flatten(1).unique(dim=0)) == len(x)


def test_pretraining_batches(blobs: ClassDataset) -> None:
    tasks = Augmented(SupervisedBatches(blobs, size=4), "affine")
    assert tasks.batch(np.arange(2)).query.x.shape[:2] == (2, 4)
    assert tasks.data is blobs
    assert tasks.describe()["augment"] == "affine"


def test_what_cannot_be() -> None:
    with pytest.raises(TaskError, match="only pictures"):
        Augmented(Sinusoids(), "affine").batch(np.arange(1))
    with pytest.raises(UserError, match="augmentation"):
        Augmented(Sinusoids(), "afine")
    with pytest.raises(TaskError, match="shift must be from 0 to 1"):
        Distortion(shift=28)
    with pytest.raises(TaskError, match="turn must be from 0 to 180"):
        Distortion(turn=-1)
