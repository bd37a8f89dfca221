from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt, gaussian_filter

from quickstudy.data.dataset import ClassDataset
from quickstudy.data.glyphs import _skeletons as skeletons
from quickstudy.data.glyphs import glyphs, strokes
from quickstudy.errors import DataError


@pytest.fixture(scope="module")
def data() -> ClassDataset:
    return glyphs(classes=60, samples_per_class=20)


def test_layout(data: ClassDataset) -> None:
    assert data.x.dtype == torch.uint8
    assert data.x.shape == (1200, 1, 28, 28)
    assert data.names[0] == "glyph-0000"
    assert data.names[-1] == "glyph-0059"
    assert data.counts.tolist() == [20] * 60
    assert data.attributes["hand"].dtype == torch.int64
    assert data.attributes["hand"].view(60, 20).tolist() == [list(range(20))] * 60
    assert data.splits["default"] == (tuple(range(36)), tuple(range(36, 48)), tuple(range(48, 60)))


@pytest.mark.parametrize("classes", [3, 9, 10, 20, 30, 47, 400])
def test_the_split_uses_every_class_once(classes: int) -> None:
    parts = glyphs(classes, 1, size=8).splits["default"]
    assert [c for part in parts for c in part] == list(range(classes))
    assert [len(part) for part in parts[1:]] == pytest.approx([0.2 * classes] * 2, abs=3)
    assert all(parts)


def test_relatives_share_strokes_and_the_split_does_not_part_them() -> None:
    """A family's characters share all but one stroke; no two of different parts share any."""

    def shapes(c: int) -> list[bytes]:
        live = bones.live[c]
        return [stroke.round(6).tobytes() for stroke in bones.controls[c][live]]

    bones = skeletons(np.arange(47), 0)
    for c in range(0, 44, 4):
        a, b = shapes(c), shapes(c + 1)
        assert len(a) == len(b)
        assert 1 <= sum(x != y for x, y in zip(a, b, strict=True)) <= 2
    train, val, test = ({s for c in part for s in shapes(c)} for part in glyphs(47, 1).splits["default"])
    assert not train & val
    assert not (train | val) & test


@pytest.mark.parametrize("turned", [False, True])
def test_a_random_split_does_not_part_relatives_either(turned: bool) -> None:
    data = glyphs(60, 2)
    parts = (data.rotated() if turned else data).split("random", seed=3)
    families = [{int(name[6:10]) // 4 for name in part.names} for part in parts]
    assert not families[0] & families[1] | families[0] & families[2] | families[1] & families[2]
    assert len(set.union(*families)) == 15


def test_the_same_again_and_another_seed_another_script(data: ClassDataset) -> None:
    assert glyphs(60, 20).fingerprint() == data.fingerprint()
    other = glyphs(60, 20, seed=1)
    assert (other.x != data.x).flatten(1).any(1).all()
    assert glyphs(2, 2, seed=-5).fingerprint() == glyphs(2, 2, seed=-5).fingerprint()


@pytest.mark.usefixtures("chance_untouched")
def test_making_pictures_leaves_the_global_generators_alone() -> None:
    glyphs(3, 3)


@pytest.mark.parametrize(("classes", "samples"), [(1, 20), (7, 20), (60, 1), (60, 3), (13, 11)])
def test_fewer_classes_or_examples_are_the_first_ones(data: ClassDataset, classes: int, samples: int) -> None:
    few = glyphs(classes, samples)
    for c in range(classes):
        torch.testing.assert_close(few.examples(c), data.examples(c)[:samples], rtol=0, atol=0)


def test_every_picture_is_another(data: ClassDataset) -> None:
    assert len(np.unique(data.x.flatten(1).numpy(), axis=0)) == len(data.x)


def test_ink_covers_a_part_of_the_picture_and_keeps_off_its_edge(data: ClassDataset) -> None:
    inked = (data.x > 63).float().mean((1, 2, 3))
    assert ((inked >= 0.045) & (inked <= 0.44)).all()
    assert 0.1 < inked.mean() < 0.25
    assert (data.x.flatten(1).amax(1) == 255).all()
    assert (data.x.flatten(1).amin(1) == 0).all()
    frame = data.x.clone()
    frame[..., 1:-1, 1:-1] = 0
    assert (frame > 127).sum() == 0


def test_pictures_of_a_class_are_nearer_to_each_other(data: ClassDataset) -> None:
    x = gaussian_filter(data.x[:, 0].numpy().astype(np.float64), (0, 2, 2)).reshape(len(data.x), -1)
    apart = torch.cdist(torch.from_numpy(x), torch.from_numpy(x))
    same = data.labels()[:, None] == data.labels()
    itself = torch.eye(len(x), dtype=torch.bool)
    assert apart[same & ~itself].mean() < 0.85 * apart[~same].mean()
    nearest = apart.masked_fill(itself, torch.inf).argmin(1)
    found = (data.labels()[nearest] == data.labels()).float().mean()
    assert 0.15 < found < 0.8  # chance is 0.016: neither hopeless nor solved by comparing pixels


def test_a_hand_has_a_style() -> None:
    """How bold a hand writes one half of the characters says how bold it writes the other half."""
    ink = glyphs(80, 20, size=28).x.float().mean((1, 2, 3)).view(80, 20)
    assert np.corrcoef(ink[:40].mean(0), ink[40:].mean(0))[0, 1] > 0.6


@pytest.mark.parametrize("size", [28, 64, 105])
def test_strokes_are_the_very_path_of_the_pen(size: int) -> None:
    data = glyphs(12, 4, size=size, seed=5)
    for c in range(12):
        for j in (0, 3):
            paths = strokes(c, j, 5)
            assert 2 <= len(paths) <= 4
            assert all(path.ndim == 2 and path.shape[1] == 2 for path in paths)
            points = np.concatenate(paths)
            assert points.min() >= 0
            assert points.max() <= 1
            picture = data.examples(c)[j, 0].numpy()
            cells = np.minimum((points * size).astype(int), size - 1)
            under = picture[cells[:, 1], cells[:, 0]]
            assert (under > 100).mean() > 0.95  # ink all along; an end of a line is fainter
            blank = np.ones_like(picture)
            blank[cells[:, 1], cells[:, 0]] = 0
            off = distance_transform_edt(blank)[picture > 0]
            assert off.max() < 0.16 * size  # and nowhere else


def test_strokes_meet() -> None:
    """Most strokes start or cross where another one is."""
    gaps = []
    for c in range(40):
        first, second = strokes(c, 0)[:2]
        gaps.append(np.linalg.norm(first[:, None] - second, axis=-1).min())
    assert np.mean(np.array(gaps) < 0.02) > 0.6


@pytest.mark.parametrize(
    ("given", "named"),
    [({"classes": 0}, "0 classes"), ({"samples_per_class": 0}, "0 examples"), ({"size": 4}, "4x4")],
)
def test_impossible_wishes_are_named(given: dict[str, int], named: str) -> None:
    with pytest.raises(DataError, match=named):
        glyphs(**given)


@pytest.mark.parametrize("index", [(-1, 0), (0, -1)])
def test_strokes_of_no_class(index: tuple[int, int]) -> None:
    with pytest.raises(DataError, match="count from 0"):
        strokes(*index)


def test_a_hundred_classes_take_no_time() -> None:
    begun = time.process_time()
    glyphs(100, 20)
    assert time.process_time() - begun < 3  # about 0.4 s
