from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickstudy.data.quickdraw import country, quickdraw
from quickstudy.data.strokes import Drawing, parse_drawing, rasterise, read_strokes
from quickstudy.errors import DataError

GOOD: dict[str, Any] = {
    "word": "ant",
    "countrycode": "US",
    "recognized": True,
    "key_id": "5421013154136064",
    "drawing": [[[0, 128, 255], [0, 10, 255]], [[7], [9]]],
}

axis = st.integers(0, 255) | st.floats(0, 255)
stroke = st.lists(st.tuples(axis, axis), min_size=1, max_size=9)


def line(**changes: object) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


@given(strokes=st.lists(stroke, min_size=1, max_size=5), word=st.text(), recognized=st.booleans())
def test_a_drawing_reads_as_it_was_written(
    strokes: list[list[tuple[float, float]]], word: str, recognized: bool
) -> None:
    pairs = [[[x for x, _ in one], [y for _, y in one]] for one in strokes]
    drawing = parse_drawing(line(drawing=pairs, word=word, recognized=recognized))
    assert (drawing.word, drawing.recognized, drawing.country) == (word, recognized, "US")
    assert [one.tolist() for one in drawing.strokes] == [[[*map(float, p)] for p in one] for one in strokes]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"word": None}, '"word" is no text'),
        ({"recognized": "yes"}, '"recognized" is no truth value'),
        ({"countrycode": None}, '"countrycode" is no two letters'),
        ({"countrycode": "us"}, '"countrycode" is no two letters'),
        ({"countrycode": "US\n"}, '"countrycode" is no two letters'),
        ({"drawing": None}, '"drawing" is no list of strokes'),
        ({"drawing": []}, '"drawing" is no list of strokes'),
        ({"drawing": {"0": 1}}, '"drawing" is no list of strokes'),
        ({"drawing": [[[1], [2]], 7]}, "stroke 2 is no pair of lists"),
        ({"drawing": [[[1], [2], [3]]]}, "stroke 1 is no pair of lists"),
        ({"drawing": [[[1], 2]]}, "stroke 1 is no pair of lists"),
        ({"drawing": [[[1, 2], [2]]]}, "stroke 1 has 2 x and 1 y"),
        ({"drawing": [[[], []]]}, "stroke 1 has 0 x and 0 y"),
        ({"drawing": [[[1], ["2"]]]}, "stroke 1 has '2' where"),
        ({"drawing": [[[True], [2]]]}, "stroke 1 has 'True' where"),
        ({"drawing": [[[256], [2]]]}, "stroke 1 has '256' where"),
        ({"drawing": [[[1], [-1]]]}, "stroke 1 has '-1' where"),
        ({"drawing": [[[1], [float("nan")]]]}, "it has NaN"),
        ({"drawing": [[[1e999], [1]]]}, "it has Infinity"),
    ],
)
def test_what_is_no_drawing_is_refused(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_drawing(line(**changes))


@pytest.mark.parametrize("content", [b"", b"\n", b"[]", b"3", b"\xff", b"{", line()[:-2], b"[" * 100_000])
def test_what_is_no_object_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_drawing(content)


@given(where=st.integers(0, len(line()) - 1), byte=st.integers(0, 255))
def test_a_damaged_line_is_refused_or_still_a_drawing(where: int, byte: int) -> None:
    content = bytearray(line())
    content[where] = byte
    try:
        drawing = parse_drawing(bytes(content))
    except ValueError:
        return
    assert all(one.ndim == 2 and one.shape[1] == 2 and len(one) for one in drawing.strokes)
    assert all(one.min() >= 0 and one.max() < 256 for one in drawing.strokes)


@given(st.binary(max_size=100))
def test_noise_is_no_drawing(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_drawing(content)


def test_a_bad_line_is_named_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "ant.ndjson"
    path.write_bytes(line() + b"\n" + line(word="bee") + b"\n{\n" + line())
    assert [drawing.word for drawing in read_strokes(path, 2)] == ["ant", "bee"]
    with pytest.raises(DataError, match=rf"{path}, line 3 is no drawing: "):
        read_strokes(path)
    with pytest.raises(DataError, match=r"none\.ndjson cannot be read: No such file"):
        read_strokes(tmp_path / "none.ndjson")


def test_an_endless_line_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_bytes(b" " * (2**20 + 1))
    with pytest.raises(DataError, match="line 1 is no drawing: it is longer than 1048576 bytes"):
        read_strokes(tmp_path / "a.ndjson")


def test_the_last_line_may_lack_its_end(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_bytes(line() + b"\n" + line())
    assert len(read_strokes(tmp_path / "a.ndjson")) == 2
    (tmp_path / "a.ndjson").write_bytes(b"")
    assert read_strokes(tmp_path / "a.ndjson") == []


def pen(strokes: list[np.ndarray], size: int) -> np.ndarray:
    """What a pen covers, from the distance of 10x10 points a pixel to each piece of line."""
    fine = (np.arange(10 * size) + 0.5) / (10 * size) * 304
    at = np.stack(np.meshgrid(fine, fine), -1)
    shift = 152 - np.concatenate(strokes).max(0) / 2
    ink = np.zeros((10 * size, 10 * size), bool)
    for stroke in strokes:
        path = stroke + shift
        for a, b in zip(path, np.concatenate([path[1:], path[-1:]]), strict=True):
            along = np.clip((at - a) @ (b - a) / max((b - a) @ (b - a), 1e-9), 0, 1)[..., None]
            ink |= ((at - a - along * (b - a)) ** 2).sum(-1) <= 64
    return ink.reshape(size, 10, size, 10).mean((1, 3)) * 255


@pytest.mark.parametrize("size", [14, 28, 56])
def test_a_pen_covers_what_lies_within_half_its_width(size: int) -> None:
    rng = np.random.default_rng(size)
    strokes = [rng.integers(0, 256, (n, 2)).astype(float) for n in (1, 2, 5)]
    picture, expected = rasterise(strokes, size), pen(strokes, size)
    assert picture.dtype == np.uint8
    assert picture.shape == (size, size)
    assert np.abs(picture - expected).mean() < 4
    assert np.corrcoef(picture.ravel(), expected.ravel())[0, 1] > 0.99


def test_a_small_drawing_is_moved_to_the_middle() -> None:
    dot = rasterise([np.array([[0.0, 0.0]])])
    ys, xs = np.nonzero(dot > 100)
    assert abs(ys.mean() - 13.5) <= 0.5
    assert abs(xs.mean() - 13.5) <= 0.5


def test_nothing_cannot_be_drawn() -> None:
    with pytest.raises(DataError, match="0 strokes cannot be drawn in 28x28"):
        rasterise([])
    with pytest.raises(DataError, match="1 strokes cannot be drawn in 0x0"):
        rasterise([np.zeros((1, 2))], 0)


def test_a_data_set_drawn_from_strokes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("QUICKSTUDY_DATA", raising=False)
    folder = tmp_path / "mine" / "simplified"
    folder.mkdir(parents=True)
    for k, name in enumerate(("ant", "bee")):
        lines = [
            line(
                drawing=[[[0, 50 * k + 10 * i], [0, 100]]],
                recognized=i != 2,
                countrycode=f"Z{'XYABC'[i - 1]}",
            )
            for i in range(1, 6)
        ]
        (folder / f"{name}.ndjson").write_bytes(b"\n".join(lines))
    for _ in range(2):  # drawn, then from the cache
        data = quickdraw(tmp_path, source="strokes", folder="mine", samples_per_class=3)
        assert data.names == ("ant", "bee")
        assert data.counts.tolist() == [3, 3]
        for i in range(3):
            drawing = read_strokes(folder / "bee.ndjson")[i]
            assert np.array_equal(data.examples(1)[i, 0].numpy(), rasterise(drawing.strokes))
        assert data.attributes["recognized"].tolist() == [1, 0, 1] * 2
        assert [country(code) for code in data.attributes["country"].tolist()] == ["ZX", "ZY", "ZA"] * 2
    (folder / "bee.ndjson").write_bytes(line())
    with pytest.raises(DataError, match="category 'bee' has 1 drawings, fewer than the 3 asked for"):
        quickdraw(tmp_path, source="strokes", folder="mine", samples_per_class=3)
    whole = quickdraw(tmp_path, source="strokes", folder="mine", samples_per_class=None)
    assert whole.counts.tolist() == [5, 1]
    with pytest.raises(DataError, match=r"place .*/simplified/aircraft%20carrier\.ndjson at "):
        quickdraw(tmp_path, source="strokes")


@pytest.mark.real_data
@pytest.mark.parametrize("folder", ["quickdraw", "quickdraw_1000"])
def test_drawn_as_the_publisher_draws(folder: str) -> None:
    if not os.environ.get("QUICKSTUDY_DATA"):
        pytest.skip("QUICKSTUDY_DATA is not set: drawing is not compared with the publisher's bitmaps")
    root = Path(os.environ["QUICKSTUDY_DATA"])
    like: list[float] = []
    apart: list[float] = []
    for path in sorted((root / folder / "numpy_bitmap").glob("*.npy"))[::4]:
        bitmaps = np.load(path, allow_pickle=False)
        drawings: list[Drawing] = read_strokes(root / "quickdraw" / "simplified" / f"{path.stem}.ndjson", 10)
        for drawing, bitmap in zip(drawings, bitmaps, strict=False):
            picture = rasterise(drawing.strokes).ravel()
            like.append(np.corrcoef(picture, bitmap)[0, 1])
            apart.append(np.sqrt(np.mean((picture - bitmap.astype(float)) ** 2)))
    assert len(like) >= 50
    assert min(like) > 0.99
    assert np.mean(like) > 0.997
    assert np.mean(apart) < 8  # of 255: correlation alone would miss paler ink
