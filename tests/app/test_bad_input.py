"""Whatever is wrong with the input: exit code 2, one line, and the line names the thing."""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from quickstudy.data import ClassDataset
from quickstudy.errors import DataError, TaskError
from quickstudy.tasks import tasks

Refused = Callable[..., str]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """9 classes of 6 pictures."""
    rng = np.random.default_rng(0)
    for c in range(9):
        folder = tmp_path / "pictures" / f"class{c}"
        folder.mkdir(parents=True)
        for i in range(6):
            Image.fromarray(rng.integers(0, 255, (10, 10), np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "pictures"


@pytest.fixture
def train(pictures: Path, tmp_path: Path) -> list[object]:
    """A command that works on these pictures."""
    options = "--learner protonet --way 2 --query 1 --train-way 2 --iterations 1 --body mlp --channels 4"
    more = "--size 8 --meta-batch 2 --validation-tasks 2 --threads 1"
    return ["train", *options.split(), *more.split(), "--data", pictures, "--out", tmp_path / "run"]


def test_the_command_works(train: list[object], command: Callable[..., Any]) -> None:
    assert command(*train).code == 0


def test_an_empty_class_folder(train: list[object], pictures: Path, refused: Refused) -> None:
    (pictures / "hollow").mkdir()
    assert refused(*train).startswith(f"{pictures / 'hollow'}: the class folder holds no pictures")


def test_one_picture_for_five_shots(train: list[object], pictures: Path, refused: Refused) -> None:
    for c in range(9):
        for i in range(1, 6):
            (pictures / f"class{c}" / f"{i}.png").unlink()
    line = refused(*train, "--shot", 5)
    assert "has 1 example, too few for 5 shots + 1 query" in line
    assert "class 'class" in line


def test_a_text_named_png(train: list[object], pictures: Path, refused: Refused) -> None:
    (pictures / "class3" / "2.png").write_text("Dear diary")
    assert refused(*train) == (
        f"{pictures / 'class3' / '2.png'}: not a picture, whatever its name says; remove or replace it"
    )


def test_a_truncated_png(train: list[object], pictures: Path, refused: Refused) -> None:
    path = pictures / "class3" / "2.png"
    path.write_bytes(path.read_bytes()[:-60])
    line = refused(*train)
    assert str(path) in line
    assert "damaged or cut off" in line


def test_a_picture_of_400_megapixels(train: list[object], pictures: Path, refused: Refused) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    path = pictures / "class3" / "2.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + rows)
    assert refused(*train) == f"{path}: the picture has more than 80 megapixels; make it smaller"


def test_an_unreadable_folder(
    train: list[object], pictures: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.iterdir

    def closed(self: Path) -> Any:
        if self.name == "class3":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        return real(self)

    monkeypatch.setattr(Path, "iterdir", closed)
    assert refused(*train) == f"{pictures / 'class3'}: no permission to read this folder"


def test_two_classes_of_one_name(train: list[object], pictures: Path, refused: Refused) -> None:
    (pictures / "class3").rename(pictures / "Class4")
    line = refused(*train)
    assert "'Class4'" in line
    assert "'class4'" in line


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--way", 50], "too few in a part for 50 ways: --way 3 will do"),
        (["--train-way", 50], "pictures has 3 classes here: 50 ways are more than there are"),
        (["--shot", -1], "shot must be at least 1, not -1"),
        (["--query", 0], "query must be at least 1, not 0"),
        (["--way", 1], "way must be at least 2, not 1"),
        (["--train-shot", 0], "train-shot must be at least 1, not 0"),
        (["--shot", 6], "too few for 6 shots"),
        (["--samples-per-class", 60], "has 6 examples, fewer than the 60 asked for"),
        (["--split", "vinyals"], "unknown split of pictures 'vinyals'"),
        (["--threads", 0], "threads must be at least 1"),
        (["--iterations", -5], "iterations must be at least 0"),
        (["--outer-lr", "nan"], "outer-lr must be a finite number"),
        (["--split-seed", -1], "split-seed must be at least 0"),
        (["--size", 0], "size must be at least 1"),
    ],
)
def test_numbers_out_of_range(
    options: list[object], said: str, train: list[object], refused: Refused, tmp_path: Path
) -> None:
    assert said in refused(*train, *options)
    assert not (tmp_path / "run").exists()


def test_a_missing_folder_and_a_file(
    train: list[object], pictures: Path, tmp_path: Path, refused: Refused
) -> None:
    assert "none: there is no such folder" in refused(*train, "--data", tmp_path / "none")
    assert "a file, where a folder" in refused(*train, "--data", pictures / "class0" / "0.png")
    assert "no class folders" in refused(*train, "--data", _made(tmp_path / "empty"))


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_folder_that_is_no_run(
    tmp_path: Path, pictures: Path, refused: Refused, command: Callable[..., Any]
) -> None:
    for args in (
        ["evaluate", pictures],
        ["predict", pictures, "--support", pictures, "--query", pictures],
    ):
        assert refused(*args) == f"{pictures} is not a run folder: it has no config.json"
        args[1] = tmp_path / "none"
        assert "none is not a run folder: there is no such folder" in refused(*args)


@pytest.mark.parametrize("name", ["write", "fsync", "replace", "open"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_refuses(
    name: str, number: int, train: list[object], refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    def fail(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("quickstudy.files.os", SimpleNamespace(**{**vars(os), name: fail}))
    train[1:1] = ["--iterations", "0"]
    line = refused_last(refused, train)
    assert line.startswith("cannot write ")
    assert line.endswith(os.strerror(number))


def refused_last(refused: Refused, args: list[object]) -> str:
    """The line of a command that first says what it is going to do."""
    from unittest.mock import patch

    with patch("quickstudy.app.train.Bar"), patch("quickstudy.app.train.announce"):
        return refused(*args)


def test_a_place_that_cannot_be_made(train: list[object], tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "file").touch()
    assert "file/run" in refused_last(refused, [*train[:-1], tmp_path / "file" / "run"])


def test_labels_of_wrong_length() -> None:
    with pytest.raises(DataError, match="arrays: 4 examples but 3 labels"):
        ClassDataset.from_arrays(np.zeros((4, 8, 8)), [0, 1, 2])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_arrays_with_nan(bad: float) -> None:
    x = np.zeros((4, 8, 8), np.float32)
    x[2, 3, 3] = bad
    with pytest.raises(DataError, match="example 2 holds NaN or infinity"):
        ClassDataset.from_arrays(x, [0, 0, 1, 1])


def test_duplicate_names() -> None:
    with pytest.raises(DataError, match="two classes are both called 'cat'"):
        ClassDataset.from_arrays(np.zeros((4, 8, 8)), [0, 0, 1, 1], names=["cat", "cat"])


def test_more_ways_than_classes() -> None:
    data = ClassDataset.from_arrays(np.zeros((6, 8, 8)), [0, 0, 1, 1, 2, 2], name="toys")
    with pytest.raises(TaskError, match="toys has 3 classes here: 5 ways are more than there are"):
        tasks(data, way=5)
    with pytest.raises(TaskError, match="shot must be at least 1, not -1"):
        tasks(data, way=2, shot=-1)
