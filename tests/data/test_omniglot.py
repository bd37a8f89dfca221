from __future__ import annotations

import io
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from quickstudy.data.cache import data_root
from quickstudy.data.omniglot import DRAWERS, class_names, omniglot
from quickstudy.errors import DataError, UserError

MODULE = sys.modules[omniglot.__module__]  # whose name in the package is that of the function

Change = Callable[[dict[str, bytes]], None]


def png(ink: int, size: tuple[int, int] = (105, 105)) -> bytes:
    """A black square of side `ink` in the top left corner of white paper, as the publisher draws."""
    picture = Image.new("1", size, 1)
    picture.paste(0, (0, 0, ink, ink))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def nothing_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("QUICKSTUDY_DATA", raising=False)


@pytest.fixture
def two_alphabets(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, ...]]:
    """A world in which Omniglot has five characters, so that a whole zip is quickly written."""
    few = {
        "background": ("A/character01", "A/character02", "B/character01"),
        "evaluation": ("C/character01", "C/character02"),
    }

    def names(part: str | None = None) -> tuple[str, ...]:
        return few[part] if part else few["background"] + few["evaluation"]

    monkeypatch.setattr(MODULE, "class_names", names)
    monkeypatch.setattr(MODULE, "splits", lambda: {"vinyals": ((0, 1), (2,), (3, 4))})
    return few


def place(root: Path, few: dict[str, tuple[str, ...]], change: Change = lambda files: None) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    number = 0
    for part, names in few.items():
        files = {f"images_{part}/": b""}
        for name in names:
            number += 1
            for drawer in range(1, DRAWERS + 1):
                files[f"images_{part}/{name}/{number:04d}_{drawer:02d}.png"] = png(number * 4 + drawer)
        if part == "background":
            change(files)
        with zipfile.ZipFile(root / f"images_{part}.zip", "w") as archive:
            for file, content in files.items():
                archive.writestr(file, content)
    return root


@pytest.mark.parametrize("folder", ["", "omniglot"])
def test_each_drawing_lands_in_its_row(
    tmp_path: Path, two_alphabets: dict[str, tuple[str, ...]], folder: str
) -> None:
    place(tmp_path / "root" / folder, two_alphabets)
    data = omniglot(tmp_path / "root", size=105, download=False)
    assert data.names == two_alphabets["background"] + two_alphabets["evaluation"]
    assert data.class_attributes["alphabet"] == ("A", "A", "B", "C", "C")
    assert data.image_shape == (1, 105, 105)
    for row, (label, drawer) in enumerate(
        zip(data.labels().tolist(), data.attributes["drawer"].tolist(), strict=True)
    ):
        side = (label + 1) * 4 + drawer + 1
        expected = np.zeros((105, 105), np.uint8)
        expected[:side, :side] = 255
        np.testing.assert_array_equal(data.x[row, 0].numpy(), expected)


def test_area_average(tmp_path: Path, two_alphabets: dict[str, tuple[str, ...]]) -> None:
    """105 = 5 x 21, so each small pixel is exactly the mean of 25."""
    place(tmp_path, two_alphabets)
    large = omniglot(tmp_path, size=105).x.double()
    small = omniglot(tmp_path, size=21)
    means = large.reshape(-1, 1, 21, 5, 21, 5).mean((3, 5))
    assert (small.x.double() - means).abs().max() <= 1
    assert "area" in small.note
    nearest = omniglot(tmp_path, size=21, filter="nearest")
    assert set(nearest.x.unique().tolist()) == {0, 255}
    assert "nearest" in nearest.note


def test_kept_until_the_zip_changes(
    tmp_path: Path, two_alphabets: dict[str, tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    place(tmp_path / "a", two_alphabets)
    first = omniglot(tmp_path / "a")

    def other(files: dict[str, bytes]) -> None:
        files["images_background/A/character01/0001_01.png"] = png(90)

    place(tmp_path / "a", two_alphabets, other)
    second = omniglot(tmp_path / "a")
    assert not torch.equal(first.x[0], second.x[0])
    assert torch.equal(first.x[1:], second.x[1:])
    monkeypatch.setattr(MODULE, "_read", None)
    assert omniglot(tmp_path / "a").fingerprint() == second.fingerprint()
    with pytest.raises(TypeError):
        omniglot(tmp_path / "a", cache=False)


FIRST = "images_background/A/character01/0001_01.png"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.pop(FIRST), "A/character01, drawing 1, is missing (1 differences"),
        (
            lambda f: f.update({"images_background/A/character09/0009_01.png": png(5)}),
            "A/character09.*not one of",
        ),
        (lambda f: f.clear(), "A/character01, drawing 1, is missing (60 differences"),
        (lambda f: f.update({FIRST: b"hello"}), "0001_01.png in images_background.zip cannot be read"),
        (lambda f: f.update({FIRST: png(9)[:60]}), "0001_01.png in images_background.zip cannot be read"),
        (lambda f: f.update({FIRST: png(9, (106, 105))}), "106x105, not 105x105"),
        (lambda f: f.update({FIRST: bytes(200_000)}), "200000 bytes are too many"),
    ],
)
def test_a_wrong_zip_is_named(
    tmp_path: Path, two_alphabets: dict[str, tuple[str, ...]], change: Change, said: str
) -> None:
    place(tmp_path, two_alphabets, change)
    with pytest.raises(DataError, match=said.replace("(", r"\(")) as caught:
        omniglot(tmp_path)
    assert "images_background.zip" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a zip", "half"])
def test_a_damaged_zip_is_named(
    tmp_path: Path, two_alphabets: dict[str, tuple[str, ...]], content: bytes | str
) -> None:
    path = place(tmp_path, two_alphabets) / "images_evaluation.zip"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if isinstance(content, str) else content)
    with pytest.raises(DataError, match=r"images_evaluation\.zip is not a whole zip"):
        omniglot(tmp_path)


def test_a_flipped_byte_in_a_drawing_is_found(
    tmp_path: Path, two_alphabets: dict[str, tuple[str, ...]]
) -> None:
    path = place(tmp_path, two_alphabets) / "images_background.zip"
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 8] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"0001_01\.png in images_background\.zip cannot be read"):
        omniglot(tmp_path)


def test_missing_and_not_to_be_fetched_says_what_to_place_where(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        omniglot(tmp_path / "mine", download=False)
    message = str(caught.value)
    assert "images_background.zip is not in " in message
    assert message.endswith(
        "place images_background.zip and images_evaluation.zip of "
        "https://github.com/brendenlake/omniglot/raw/master/python/ (15.9 MB together) in "
        f"{tmp_path / 'mine' / 'omniglot'}"
    )
    assert data_root(tmp_path / "mine") == tmp_path / "mine"


def test_what_is_fetched(
    tmp_path: Path, two_alphabets: dict[str, tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    download = pytest.importorskip("quickstudy.data.download")
    place(tmp_path / "server", two_alphabets)
    asked = []

    def fetch(urls: list[str], dest: Path, **checks: object) -> Path:
        asked.append((urls, dest.relative_to(tmp_path).as_posix(), checks))
        return tmp_path / "server" / dest.name

    monkeypatch.setattr(download, "fetch", fetch)
    assert len(omniglot(tmp_path / "mine")) == 5
    assert [dest for _, dest, _ in asked] == [f"mine/omniglot/images_{p}.zip" for p in two_alphabets]
    for urls, dest, checks in asked:
        assert all(url.endswith("/master/python/" + dest.split("/")[-1]) for url in urls)
        assert len(str(checks["sha256"])) == 64
        assert checks["size"] in (9_464_212, 6_462_886)


def test_bad_options() -> None:
    with pytest.raises(UserError, match="did you mean 'lanczos'"):
        omniglot(filter="lanczo")
    for size in (0, -1, 106):
        with pytest.raises(DataError, match="size"):
            omniglot(size=size)


@pytest.mark.real_data
def test_the_real_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not REAL:
        pytest.skip("QUICKSTUDY_DATA is not set: the real Omniglot was NOT tested")
    data = omniglot(REAL, download=False, progress=False, cache=False)
    assert repr(data) == "ClassDataset(omniglot: 1623 classes, 20 examples each, 1x28x28 torch.uint8)"
    assert data.names == class_names()
    assert 0.05 < data.x.double().mean() / 255 < 0.12  # ink is the lesser part, and bright
    train, val, test = data.split("vinyals")
    assert [len(train), len(val), len(test)] == [1028, 172, 423]
    assert len(train.rotated()) == 4112
    # Read one drawing from the zip by other means: the exact mean of each 28th of the page.
    with zipfile.ZipFile(Path(REAL) / "omniglot" / "images_evaluation.zip") as archive:
        content = archive.read("images_evaluation/Angelic/character01/0965_07.png")
    page = 255.0 * (1 - np.asarray(Image.open(io.BytesIO(content)), dtype=float))
    cuts = np.arange(29) * 105 / 28
    cover = np.clip(
        np.minimum.outer(cuts[1:], np.arange(105) + 1.0) - np.maximum.outer(cuts[:-1], np.arange(105.0)), 0, 1
    )
    exact = cover @ page @ cover.T / 3.75**2
    loaded = data.examples(964)[6, 0].double().numpy()
    assert np.corrcoef(exact.ravel(), loaded.ravel())[0, 1] > 0.98
    assert loaded.mean() == pytest.approx(exact.mean(), rel=0.05)


REAL = os.environ.get("QUICKSTUDY_DATA", "")
