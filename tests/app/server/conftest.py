"""A server in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from quickstudy.app.cli import main
from quickstudy.app.server import Limits

from .drawn import examples, serving


@pytest.fixture(scope="session")
def maml_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of MAML on Glyphs, a few meta-steps with 4 filters."""
    path = tmp_path_factory.mktemp("runs") / "maml"
    options = "--data glyphs --samples-per-class 6 --learner maml --channels 4 --iterations 10 --query 3"
    more = "--meta-batch 2 --validation-tasks 5 --threads 1 --steps 2 --strategy loop"
    assert main(["train", *options.split(), *more.split(), "--out", str(path)]) == 0
    return path


@pytest.fixture
def client(run: Path, maml_run: Path) -> Iterator[httpx.Client]:
    """A client of a server with usual limits: prototypical networks as "glyphs", MAML as "maml"."""
    with serving([run, maml_run]) as client:
        yield client


@pytest.fixture
def small(run: Path) -> Iterator[httpx.Client]:
    """A client of a server with low limits."""
    limits = Limits(
        body=40_000,
        seconds=1.0,
        pixels=10_000,
        together=20_000,
        images=3,
        examples=16,
        classes=6,
        classifiers=2,
    )
    with serving([run], limits=limits) as client:
        yield client


@pytest.fixture
def made(client: httpx.Client) -> str:
    """The id of a classifier of five classes."""
    answer = client.post("/classifiers", json={"examples": examples()})
    assert answer.status_code == 201, answer.text
    found: str = answer.json()["id"]
    return found
