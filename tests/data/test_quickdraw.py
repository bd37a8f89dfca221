from __future__ import annotations

import io
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from quickstudy.data import transfer
from quickstudy.data.quickdraw import categories, quickdraw
from quickstudy.errors import DataError, UserError

from .server import serving

MODULE = sys.modules[quickdraw.__module__]  # whose name in the package is that of the function
NAMES = ("cat", "The Eiffel Tower", "ant")


@pytest.fixture(autouse=True)
def nothing_elsewhere(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(transfer, "BACKOFF", 0.001)
    if not request.node.get_closest_marker("real_data"):
        monkeypatch.delenv("QUICKSTUDY_DATA", raising=False)
        monkeypatch.setattr(MODULE, "categories", lambda: NAMES)


def drawings(name: str, count: int) -> np.ndarray:
    return np.random.default_rng(len(name)).integers(0, 256, (count, 784), np.uint8)


def place(root: Path, counts: dict[str, int], folder: str = "quickdraw") -> Path:
    bitmaps = root / folder / "numpy_bitmap"
    bitmaps.mkdir(parents=True, exist_ok=True)
    for name, count in counts.items():
        np.save(bitmaps / f"{name}.npy", drawings(name, count))
    return root


def test_345_names_are_shipped() -> None:
    names = categories()
    assert len(set(names)) == len(names) == 345
    assert names[:2] == ("aircraft carrier", "airplane")
    assert names[-1] == "zigzag"


def test_the_first_drawings_of_each_category(tmp_path: Path) -> None:
    data = quickdraw(place(tmp_path, dict.fromkeys(NAMES, 9)), samples_per_class=4, download=False)
    assert data.names == NAMES
    assert data.image_shape == (1, 28, 28)
    for c, name in enumerate(NAMES):
        assert np.array_equal(data.examples(c).numpy().reshape(4, 784), drawings(name, 9)[:4])


def test_a_seed_chooses_among_all_that_are_here(tmp_path: Path) -> None:
    place(tmp_path, dict.fromkeys(NAMES, 200))
    one, same, other = (quickdraw(tmp_path, samples_per_class=4, seed=s, download=False) for s in (1, 1, 2))
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()
    whole = {row.tobytes() for row in drawings("cat", 200)}
    chosen = {row.numpy().tobytes() for row in one.examples(0).reshape(4, 784)}
    assert len(chosen) == 4
    assert chosen <= whole


def test_all_there_are_may_be_unequally_many(tmp_path: Path) -> None:
    data = quickdraw(place(tmp_path, {"cat": 3, "The Eiffel Tower": 7, "ant": 1}), samples_per_class=None)
    assert data.counts.tolist() == [3, 7, 1]


def test_another_folder_has_the_categories_that_are_its_files(tmp_path: Path) -> None:
    data = quickdraw(place(tmp_path, {"dog": 3, "bee": 3}, "mine"), samples_per_class=3, folder="mine")
    assert data.names == ("bee", "dog")
    assert data.name == "mine"
    with pytest.raises(DataError, match=rf"no \.npy files in others/numpy_bitmap in {tmp_path}"):
        quickdraw(tmp_path, folder="others")


def test_the_place_with_enough_drawings_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place(tmp_path / "few", dict.fromkeys(NAMES, 2))
    place(tmp_path / "many", dict.fromkeys(NAMES, 6))
    monkeypatch.setenv("QUICKSTUDY_DATA", str(tmp_path / "many"))
    assert quickdraw(tmp_path / "few", samples_per_class=5, download=False).counts.tolist() == [5] * 3


@pytest.mark.parametrize("folder", ["quickdraw", "mine"])
def test_too_few_drawings_name_the_category_and_the_count(tmp_path: Path, folder: str) -> None:
    place(tmp_path, {"cat": 9, "The Eiffel Tower": 9, "ant": 7}, folder)
    with pytest.raises(DataError, match="category 'ant' has 7 drawings, fewer than the 8 asked for"):
        quickdraw(tmp_path, samples_per_class=8, folder=folder, download=False)


def test_a_missing_category_says_what_to_put_where(tmp_path: Path) -> None:
    place(tmp_path, {"cat": 9, "ant": 9})
    with pytest.raises(DataError) as error:
        quickdraw(tmp_path, samples_per_class=8, download=False)
    where = tmp_path / "quickdraw" / "numpy_bitmap" / "The Eiffel Tower.npy"
    assert f"place {MODULE.URL}The%20Eiffel%20Tower.npy at {where}" in str(error.value)


@pytest.mark.parametrize("samples", [0, -1])
def test_no_samples_are_refused(tmp_path: Path, samples: int) -> None:
    with pytest.raises(DataError, match=f"{samples} samples per class"):
        quickdraw(tmp_path, samples_per_class=samples)


def test_a_mistyped_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'bitmaps': did you mean 'bitmap'"):
        quickdraw(tmp_path, source="bitmaps")


def test_only_the_classes_asked_for_are_read_and_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place(tmp_path / "server", dict.fromkeys(NAMES, 9))
    files = {f"/{path.stem}.npy": path.read_bytes() for path in (tmp_path / "server").rglob("*.npy")}
    with serving(files) as server:
        monkeypatch.setattr(MODULE, "URL", server.url)
        data = quickdraw(tmp_path / "here", samples_per_class=4, classes=["ant", "cat"])
        assert {path for path, *_ in server.requests} == {"/ant.npy", "/cat.npy"}
    assert data.names == ("ant", "cat")
    assert np.array_equal(data.examples(0).numpy().reshape(4, 784), drawings("ant", 9)[:4])
    with pytest.raises(UserError, match="unknown category 'cats': did you mean 'cat'"):
        quickdraw(tmp_path, classes=["ant", "cats"])
    with pytest.raises(DataError, match="no classes are asked for"):
        quickdraw(tmp_path, classes=[])


def test_the_note_gives_the_attribution(tmp_path: Path) -> None:
    data = quickdraw(place(tmp_path, dict.fromkeys(NAMES, 1)), samples_per_class=1)
    assert "Quick, Draw! Dataset, Google" in data.note
    assert "CC BY 4.0" in data.note


@pytest.mark.parametrize("damage", ["empty", "cut", "noise", "pickle", "wide", "float"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    path = place(tmp_path, dict.fromkeys(NAMES, 9)) / "quickdraw" / "numpy_bitmap" / "ant.npy"
    if damage == "pickle":
        np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    elif damage == "wide":
        np.save(path, np.zeros((9, 785), np.uint8))
    elif damage == "float":
        np.save(path, np.zeros((9, 784), np.float32))
    else:
        whole = path.read_bytes()
        path.write_bytes({"empty": b"", "cut": whole[:-1], "noise": whole[::-1]}[damage])
    with pytest.raises(DataError, match=rf"{path} cannot be used: .*remove it"):
        quickdraw(tmp_path, samples_per_class=2)


def test_only_what_is_missing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place(tmp_path / "server", dict.fromkeys(NAMES, 500))
    files = {
        f"/{name}.npy": (tmp_path / "server/quickdraw/numpy_bitmap" / f"{name}.npy").read_bytes()
        for name in NAMES
    }
    root = place(tmp_path / "here", {"cat": 30, "ant": 3})
    with serving(files) as server:
        monkeypatch.setattr(MODULE, "URL", server.url)
        server.faults = [1000, None, None, 503]
        data = quickdraw(root, samples_per_class=10)
        asked = {path for path, *_ in server.requests}
        assert asked == {"/The Eiffel Tower.npy", "/ant.npy"}
        assert server.sent == 2 * (128 + 10 * 784)
        again = quickdraw(root, samples_per_class=10)
        assert server.sent == 2 * (128 + 10 * 784)
    assert data.fingerprint() == again.fingerprint()
    for c, name in list(enumerate(NAMES))[1:]:
        assert np.array_equal(data.examples(c).numpy().reshape(10, 784), drawings(name, 500)[:10])


def test_rows_that_are_not_the_publishers_are_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered = place(tmp_path, {"cat": 9, "ant": 9}) / "quickdraw/numpy_bitmap/cat.npy"
    np.save(rendered, 255 - drawings("cat", 3))
    content = rendered.read_bytes()
    buffer = io.BytesIO()
    np.save(buffer, drawings("cat", 9))
    with serving({"/cat.npy": buffer.getvalue()}) as server:
        monkeypatch.setattr(MODULE, "URL", server.url)
        with pytest.raises(DataError, match=r"cat.npy holds other rows than the first of http.*; move it"):
            quickdraw(tmp_path, samples_per_class=4, classes=["cat"])
    assert rendered.read_bytes() == content
    assert sorted(p.name for p in rendered.parent.iterdir()) == ["ant.npy", "cat.npy"]


def test_what_came_before_an_interruption_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place(tmp_path / "server", dict.fromkeys(NAMES, 50))
    folder = tmp_path / "server/quickdraw/numpy_bitmap"
    files = {f"/{name}.npy": (folder / f"{name}.npy").read_bytes() for name in NAMES}
    missing = files.pop("/ant.npy")
    with serving(files) as server:
        monkeypatch.setattr(MODULE, "URL", server.url)
        with pytest.raises(
            DataError,
            match=r"category 'ant' has 0 of the 10 drawings .* one of 3, 0.0 MB in all, that belong in ",
        ):
            quickdraw(tmp_path / "here", samples_per_class=10)
        server.files["/ant.npy"] = missing
        here = {f"/{path.name}" for path in (tmp_path / "here").rglob("*.npy")}
        before = len(server.requests)
        assert quickdraw(tmp_path / "here", samples_per_class=10).counts.tolist() == [10] * 3
        assert {path for path, *_ in server.requests[before:]} == {*server.files} - here


def test_a_publisher_with_too_few_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place(tmp_path / "server", dict.fromkeys(NAMES, 5))
    folder = tmp_path / "server/quickdraw/numpy_bitmap"
    with serving({f"/{name}.npy": (folder / f"{name}.npy").read_bytes() for name in NAMES}) as server:
        monkeypatch.setattr(MODULE, "URL", server.url)
        with pytest.raises(DataError, match=r"category 'cat' has 5 drawings, fewer than the 6 asked for"):
            quickdraw(tmp_path / "here", samples_per_class=6)
        with pytest.raises(DataError, match=r"has 5 of the 6 drawings .* it has 5 rows, fewer than the 6"):
            quickdraw(tmp_path / "here", samples_per_class=6)
    assert quickdraw(tmp_path / "here", samples_per_class=5).counts.tolist() == [5] * 3


@pytest.fixture
def real() -> Path:
    if not os.environ.get("QUICKSTUDY_DATA"):
        pytest.skip("QUICKSTUDY_DATA is not set: the real Quick, Draw! is not tested")
    return Path(os.environ["QUICKSTUDY_DATA"])


@pytest.mark.real_data
def test_the_real_drawings(real: Path) -> None:
    start = time.perf_counter()
    data = quickdraw(real, samples_per_class=20, download=False)
    assert time.perf_counter() - start < 2
    assert [len(part) for part in data.split("random", seed=0)] == [207, 69, 69]
    ant = data.names.index("ant")
    rows = np.load(real / "quickdraw/numpy_bitmap/ant.npy", allow_pickle=False)
    assert np.array_equal(data.examples(ant).numpy().reshape(20, 784), rows[:20])
    assert data.x[:, :, 0, 0].float().mean() < 5  # black corners: white ink on black
    with pytest.raises(DataError, match="'aircraft carrier' has 25 drawings, fewer than the 26 asked for"):
        quickdraw(real, samples_per_class=26, download=False)


@pytest.mark.real_data
def test_a_thousand_of_twenty_categories(real: Path) -> None:
    data = quickdraw(real, samples_per_class=None, folder="quickdraw_1000")
    assert (len(data), data.counts.unique().tolist()) == (20, [1000])
