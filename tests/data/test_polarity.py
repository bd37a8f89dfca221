from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_images

from quickstudy.data import digits, glyphs, polarity
from quickstudy.data.polarity import sides


def page(paper: float = 255, ink: float = 0) -> np.ndarray:
    """One thin vertical stroke: 15 of 784 pixels, 1.9 %."""
    x = np.full((1, 28, 28), paper, np.uint8)
    x[0, 5:20, 10] = ink
    return x


@given(
    paper=st.integers(150, 255),
    ink=st.integers(0, 80),
    left=st.integers(0, 20),
    width=st.integers(1, 5),
    seed=st.integers(0, 9),
    channels=st.sampled_from([1, 3]),
)
def test_polarity_of_a_stroke(paper: int, ink: int, left: int, width: int, seed: int, channels: int) -> None:
    x = np.full((channels, 28, 28), paper, float)
    x[:, 4:24, left + 2 : left + 2 + width] = ink
    x += np.random.default_rng(seed).normal(0, 5, x.shape)
    for scale in (1, 1 / 255):
        assert polarity(x * scale) == "dark-on-light"
        assert polarity((255 - x) * scale) == "light-on-dark"


def test_most_pictures_have_to_agree_and_blank_ones_say_nothing() -> None:
    dark, light, blank = page(), page(0, 255), page(255, 255)
    assert polarity(torch.from_numpy(np.stack([dark] * 3 + [light] + [blank] * 9))) == "dark-on-light"
    assert polarity(np.stack([light] * 3 + [dark] + [blank] * 9)) == "light-on-dark"
    assert polarity(np.stack([dark] * 2 + [light])) is None
    assert polarity(np.stack([light] * 2 + [dark])) is None
    nearly_blank = page(255, 250)
    assert polarity(np.stack([light] + [nearly_blank] * 3)) == "light-on-dark"


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_blank_pictures_have_none(grey: int) -> None:
    assert polarity(page(grey, grey)) is None


@pytest.mark.parametrize("size", [28, 84, 200])
def test_photographs_have_none(size: int) -> None:
    rng = np.random.default_rng(0)
    for photo in load_sample_images().images:
        height, width, _ = photo.shape
        corners = zip(rng.integers(0, height - size, 60), rng.integers(0, width - size, 60), strict=True)
        crops = np.stack([photo[a : a + size, b : b + size].transpose(2, 0, 1) for a, b in corners])
        assert polarity(crops) is None
        assert polarity(crops.mean(1, keepdims=True)) is None


def test_the_drawings_of_this_library_are_light_on_dark() -> None:
    for data in (digits(), glyphs(40)):
        assert polarity(data.x) == "light-on-dark"
        assert polarity(255 - data.x) == "dark-on-light"


def test_colours_of_one_brightness_have_none() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 255, (40, 3, 4, 4), np.uint8)
    large = [np.asarray(Image.fromarray(p.transpose(1, 2, 0)).resize((28, 28))) for p in x]
    assert polarity(np.stack(large).transpose(0, 3, 1, 2)) is None


@given(st.integers(0, 10**6))
def test_sides_are_each_pictures_own(seed: int) -> None:
    """Of many pictures the same as of each alone; noise and blank ones are of no side."""
    rng = np.random.default_rng(seed)
    pictures = [page(250, 10), page(5, 200), page(90, 90), rng.integers(0, 256, (1, 28, 28), np.uint8)]
    x = np.stack([pictures[i] for i in rng.integers(0, 4, 9)])
    contrast, side = sides(x)
    for i, picture in enumerate(x):
        assert (contrast[i], side[i]) == tuple(part[0] for part in sides(picture[None]))
        assert polarity(picture) == {1: "dark-on-light", -1: "light-on-dark", 0: None}[int(side[i])]
