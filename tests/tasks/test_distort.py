from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from quickstudy.tasks.distort import affine, distorted

pytestmark = pytest.mark.usefixtures("float64")


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_it_is_torchs_affine_grid() -> None:
    x, by = torch.rand(5, 2, 6, 9), affine(5, generator=generator()).double()
    grid = F.affine_grid(by, [5, 2, 6, 9], align_corners=False)
    wanted = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
    torch.testing.assert_close(distorted(x, by), wanted, rtol=1e-6, atol=1e-7)


def test_a_quarter_turn_and_a_shift_by_hand() -> None:
    x = torch.rand(1, 1, 4, 4)
    turn = torch.tensor([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]])
    torch.testing.assert_close(distorted(x, turn), torch.rot90(x, 1, (-2, -1)))
    shift = torch.tensor([[[1.0, 0.0, 0.5], [0.0, 1.0, 0.0]]])  # a pixel of four
    wanted = torch.cat([x[..., 1:], x[..., -1:]], -1)  # beyond the edge it goes on as at it
    torch.testing.assert_close(distorted(x, shift), wanted)


def test_the_ranges_and_how_often_each_component_is_left_out() -> None:
    by = affine(20000, generator=generator())
    shifts = by[:, :, 2]
    assert shifts.abs().max() <= 2 / 52.5
    assert shifts.abs().max() > 1.9 / 52.5
    assert (shifts == 0).double().mean().item() == pytest.approx(0.5, abs=0.02)
    identity = (by == torch.eye(2, 3)).all(-1).all(-1)
    assert identity.double().mean().item() == pytest.approx(0.5**7, abs=0.004)
    # Without shear and scaling what is left is a rotation, of at most 10 degrees.
    linear = by[:, :, :2].double()
    rotations = linear[(linear.mT @ linear - torch.eye(2)).abs().amax((-2, -1)) < 1e-6]
    angles = torch.atan2(rotations[:, 1, 0], rotations[:, 0, 0])
    assert math.radians(9) < angles.abs().max() <= math.radians(10) + 1e-6
    areas = torch.linalg.det(linear)
    assert areas.min() > 0.8**2 * (1 - 0.3**2) - 1e-6
    assert areas.max() < 1.2**2 * (1 + 0.3**2) + 1e-6


def test_strength_is_a_part_of_the_ranges() -> None:
    eye = torch.eye(2, 3)
    assert torch.equal(affine(3, generator=generator(), strength=0.0), eye.expand(3, 2, 3))
    full, half = (affine(50, generator=generator(), strength=s) for s in (1.0, 0.5))
    torch.testing.assert_close(half[..., 2], full[..., 2] / 2)
