"""Pictures of any form become those a net was trained on; what they come from makes no difference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from quickstudy.data.images import read_image
from quickstudy.data.pictures import Pictures, inverted, others
from quickstudy.data.polarity import Polarity
from quickstudy.errors import DataError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (5, 12, 12)).astype(np.uint8)  # [n, H, W]
COLOUR = RNG.integers(0, 256, (5, 12, 12, 3)).astype(np.uint8)  # [n, H, W, C]


@pytest.mark.parametrize(
    "form",
    [
        lambda x: x,
        lambda x: x[:, None],
        lambda x: x[..., None],
        lambda x: x.reshape(len(x), -1),
        lambda x: x.reshape(len(x), -1).astype(np.int64),
        lambda x: x.reshape(len(x), -1).astype(np.float64),
        lambda x: x.astype(np.float32) / 255,
        lambda x: torch.from_numpy(x),
        lambda x: torch.from_numpy(x.reshape(len(x), -1) / 255),
        lambda x: x.tolist(),
        lambda x: [Image.fromarray(one) for one in x],
        lambda x: np.array([Image.fromarray(one) for one in x] + [None], dtype=object)[:-1],
    ],
)
def test_any_form_of_grey_pictures_is_the_same(form: Any) -> None:
    found = Pictures((1, 12, 12)).of(form(GREY))
    assert found.shape == (5, 1, 12, 12)
    scale = 255 if found.dtype == np.uint8 else 1
    np.testing.assert_allclose(found / scale, GREY[:, None] / 255, atol=1e-7)


@pytest.mark.parametrize("size", [7, 12, 20])
@pytest.mark.parametrize("channels", [1, 3])
def test_arrays_images_and_files_are_brought_to_a_size_alike(
    size: int, channels: int, tmp_path: Path
) -> None:
    """Files by `read_image`, which has tests of its own."""
    files = []
    for i, one in enumerate(COLOUR):
        files.append(tmp_path / f"{i}.png")
        Image.fromarray(one).save(files[-1])
    expected = np.stack([read_image(f, size, "rgb" if channels == 3 else "grey") for f in files])
    pictures = Pictures((channels, size, size))
    for form in (files, list(map(str, files)), np.array(list(map(str, files))), COLOUR):
        np.testing.assert_array_equal(pictures.of(form), expected)
    np.testing.assert_array_equal(pictures.of(np.moveaxis(COLOUR, -1, 1)), expected)
    np.testing.assert_array_equal(pictures.of([Image.open(f) for f in files]), expected)
    if channels == 3:
        np.testing.assert_allclose(
            pictures.of(COLOUR / 255), expected / (255 if size == 12 else 1), atol=1e-6
        )


def test_flattened_squares_of_another_size_are_resized() -> None:
    rows = GREY.reshape(5, -1)
    np.testing.assert_array_equal(Pictures((1, 6, 6)).of(rows), Pictures((1, 6, 6)).of(GREY))


@given(st.integers(1, 255), st.integers(1, 20))
def test_dark_floats_are_pixels_where_the_examples_were(level: int, n: int) -> None:
    """Alone, a picture of next to no ink would pass for one of fractions."""
    pictures = Pictures((1, 4, 4))
    examples = np.full((n, 16), 200.0)
    dark = np.full((1, 16), float(level))
    white = pictures.white(examples)
    np.testing.assert_allclose(pictures.of(dark, white), level / 255, rtol=1e-6)


def test_white_is_found() -> None:
    white = Pictures.white
    assert white(GREY) is white(list(GREY)) is white(["a.png"]) is white(np.zeros((0, 4))) is None
    assert white(GREY.astype(float)) == 255
    assert white(GREY / 255) == white(np.zeros((2, 4, 4))) == white(np.full((2, 4, 4), 1.02)) == 1
    assert white(GREY / 255 * 16) == 16
    np.testing.assert_allclose(Pictures((1, 12, 12)).of(GREY / 255 * 16)[:, 0], GREY / 255, atol=1e-6)


def test_fractions_where_floats_were_pixels_are_told() -> None:
    pictures = Pictures((1, 12, 12))
    with pytest.warns(UserWarning, match=r"no number is above 0\.\d+, where those before went up to 255"):
        pictures.of(GREY / 256, 255.0)
    assert pictures.of(np.eye(12)[None], 255.0).max() == np.float32(1 / 255)  # whole numbers, as pixels are


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ([GREY[0], GREY[1] / 255], "whole numbers and of floats in one list, as examples 0 and 1"),
        ([torch.rand(12, 12), torch.rand(12, 12), torch.ones(12, 12).int()], "as examples 0 and 2"),
        (np.zeros((2, 10)), "rows of 10 numbers are no square pictures: the net was trained on 1×12×12"),
        (np.zeros((2, 2, 12, 12)), "pictures of 12 channels"),
        (np.zeros(5), r"examples of shape \(\) are no pictures"),
        (np.full((2, 12, 12), -1.0), "numbers from -1 to -1; from 0, black, to 1, white"),
        (np.full((2, 12, 12), 300.0), "numbers from 300 to 300; from 0, black, to 255, white"),
        (np.full((2, 12, 12), np.nan), "NaN"),
        (np.full((2, 12, 12), 300), "whole numbers from 300 to 300 are not pixels"),
        ("a.png", "one picture where several were expected"),
        (["a.png", 3], "example 1 is neither a file name nor an image"),
        (["no/such.png"], "no/such.png: there is no such file"),
        (np.zeros((2, 12, 12), complex), "not numbers|not real"),
    ],
)
def test_what_is_no_picture_is_named(given_: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        Pictures((1, 12, 12)).of(given_)


def test_shapes_of_no_picture_are_refused() -> None:
    shapes: list[Any] = [(2, 8, 8), (1, 0, 8), (8, 8)]
    for shape in shapes:
        with pytest.raises(DataError, match="neither grey"):
            Pictures(shape)
    wide = Pictures((1, 4, 6))
    assert wide.of(np.zeros((2, 4, 6))).shape == (2, 1, 4, 6)
    with pytest.raises(DataError, match="pictures of 4×6 are not square: give arrays of this size"):
        wide.of([Image.new("L", (6, 4))])


def test_no_pictures_stay_none() -> None:
    pictures = Pictures((1, 12, 12))
    for form in ([], np.zeros((0, 12, 12), np.uint8), np.zeros((0, 144)), np.zeros((0, 7, 7), np.uint8)):
        assert pictures.of(form).shape == (0, 1, 12, 12)


def test_the_examples_decide_what_is_inverted() -> None:
    light = np.zeros((8, 1, 20, 20), np.uint8)
    light[:, :, 5:15, 9] = 255  # 2.5 % of the pixels
    photos = np.stack([np.add.outer(*RNG.normal(0, 30, (2, 20)).cumsum(1)) for _ in range(8)])
    photos = np.clip(photos + 128, 0, 255).astype(np.uint8)[:, None]
    cases: tuple[tuple[Polarity | None, np.ndarray, bool | None], ...] = (
        ("light-on-dark", 255 - light, True),
        ("dark-on-light", light, True),
        ("light-on-dark", light, False),
        (None, light, False),
        (None, photos, False),
        ("light-on-dark", photos, None),
        ("light-on-dark", np.concatenate([light, 255 - light]), None),
        ("light-on-dark", np.full_like(light, 255), None),
    )
    for polarity, x, expected in cases:
        assert Pictures((1, 20, 20), polarity).inverts(x) is expected
    assert Pictures((1, 20, 20), "light-on-dark").inverts(photos, "dark-on-light") is True
    assert others(np.concatenate([light[:2], 255 - light[:1], light[2:]]), light) == [2]
    assert others(light, photos) == []
    np.testing.assert_array_equal(inverted(light), 255 - light)
    np.testing.assert_allclose(inverted(light / 255), 1 - light / 255)
