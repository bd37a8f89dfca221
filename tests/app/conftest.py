"""The command line in this process, pictures on disk, a run trained briefly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from quickstudy.app.cli import main
from quickstudy.data import glyphs


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("QUICKSTUDY_DATA", raising=False)
    monkeypatch.delenv("QUICKSTUDY_DEBUG", raising=False)


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """A function that runs `quickstudy ARGS` and gives the exit code and what it printed."""

    def call(*args: object) -> Said:
        capfd.readouterr()
        code = main([str(a) for a in args])
        return Said(code, *capfd.readouterr())

    return call


@pytest.fixture
def refused(command: Callable[..., Said]) -> Callable[..., str]:
    """A function that runs a command which must end with code 2 and one line on standard error: that line."""

    def call(*args: object) -> str:
        said = command(*args)
        assert said.code == 2, said
        assert said.out == ""
        assert said.err.endswith("\n")
        (line,) = filter(None, said.err.splitlines())
        assert line.startswith("quickstudy: ")
        return line.removeprefix("quickstudy: ")

    return call


def draw(folder: Path, classes: int, each: int, *, photo: bool = False) -> Path:
    """A folder of drawings: black on white, of another size and in colour, if they are to be photos."""
    data = glyphs(classes=classes + 40, samples_per_class=each, seed=7)
    for c in range(classes):
        place = folder / f"sign {c}"
        place.mkdir(parents=True)
        for i, ink in enumerate(data.examples(c + 40)[:, 0].numpy()):
            picture = Image.fromarray(255 - ink if photo else ink)
            if photo:
                grey = np.asarray(picture.resize((90, 90)))
                tinted = np.stack([grey, grey, (grey * 0.9).astype(np.uint8)], -1)
                picture = Image.fromarray(tinted).resize((90, 60))
            picture.save(place / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of prototypical networks on Glyphs, 30 meta-steps with 4 filters."""
    path = tmp_path_factory.mktemp("runs") / "glyphs"
    options = "--data glyphs --samples-per-class 6 --learner protonet --channels 4 --iterations 30 --query 3"
    more = "--meta-batch 2 --train-way 5 --train-query 2 --validation-tasks 5 --threads 1 --outer-lr 0.01"
    assert main(["train", *options.split(), *more.split(), "--out", str(path)]) == 0
    return path


@pytest.fixture(scope="session")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5 classes of 5 drawings, light on dark as Glyphs are."""
    return draw(tmp_path_factory.mktemp("drawings") / "all", 5, 5)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, black on white, in colour, 90x60."""
    return draw(tmp_path_factory.mktemp("photos") / "all", 5, 5, photo=True)
