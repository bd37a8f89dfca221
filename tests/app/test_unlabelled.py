"""Examples without labels from the command line: trained with, measured with, learned from in use."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from quickstudy.app.cli import main
from quickstudy.data import read_image
from quickstudy.outer.load_run import load_run
from quickstudy.tasks import Support


@pytest.fixture(scope="module")
def semi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run of semi-supervised prototypes on Glyphs."""
    path = tmp_path_factory.mktemp("runs") / "semi"
    words = "train --data glyphs --learner semi-protonet --samples-per-class 8 --channels 4 --iterations 3"
    more = "--unlabelled 2 --distractors 2 --labelled 0.5 --train-way 5 --validation-tasks 4 --threads 1"
    assert main([*words.split(), *more.split(), "--out", str(path)]) == 0
    return path


def test_training_says_how_many(tmp_path: Path, command: Callable[..., Any]) -> None:
    words = "train --data digits --learner semi-protonet --way 2 --train-way 2 --channels 4 --iterations 1"
    more = "--unlabelled 2 --distractors 1 --validation-tasks 2 --threads 1 --out"
    said = command(*words.split(), *more.split(), tmp_path / "a")
    assert said.code == 0
    assert "queries a class: 5, unlabelled: 2 and of 1 classes besides" in said.err


def test_evaluation_has_as_many_as_the_run_or_as_asked(semi: Path, command: Callable[..., Any]) -> None:
    answers = [
        json.loads(command("evaluate", semi, "--tasks", 4, "--json", *more).out)
        for more in ([], ["--unlabelled", 0, "--distractors", 0])
    ]
    assert (answers[0]["unlabelled"], answers[0]["distractors"]) == (2, 2)
    assert "unlabelled" not in answers[1]
    assert {p.name for p in (semi / "evaluations").glob("*.json")} == {
        "test-5way-1shot-support-4tasks.json",
        "test-5way-1shot-support-0unlabelled-0distractors-4tasks.json",
    }


def test_predictions_learn_from_them(semi: Path, drawings: Path, command: Callable[..., Any]) -> None:
    said = command(
        "predict", semi, "--support", drawings, "--query", drawings / "sign 0", "--json",
        "--unlabelled", drawings / "sign 1", drawings / "sign 2" / "0.png",
    )  # fmt: skip
    assert said.code == 0, said
    assert "5 classes, 5 examples each, 6 unlabelled; 5 to classify" in said.err
    found = [list(p["probabilities"].values()) for p in json.loads(said.out)["predictions"]]

    def read(files: list[Path]) -> torch.Tensor:
        return torch.from_numpy(np.stack([read_image(f, 28, "grey") for f in files]))

    files = sorted(drawings.rglob("*.png"))
    classes = sorted({f.parent for f in files})
    labels = torch.tensor([classes.index(f.parent) for f in files])
    more = read([*sorted((drawings / "sign 1").iterdir()), drawings / "sign 2" / "0.png"])
    learner = load_run(semi)[0]
    queries = read(sorted((drawings / "sign 0").iterdir()))
    with_them = learner.adapt(Support(read(files), labels, unlabelled=more)).probabilities(queries)
    without = learner.adapt(read(files), labels).probabilities(queries)
    np.testing.assert_allclose(found, with_them.numpy(), atol=1e-5)
    assert not torch.allclose(with_them, without, atol=1e-4)


def test_who_cannot_learn_from_them_says_so(run: Path, drawings: Path, refused: Callable[..., str]) -> None:
    options = ["--support", drawings, "--query", drawings / "sign 0", "--unlabelled", drawings / "sign 1"]
    assert refused("predict", run, *options) == (
        "protonet learns from labelled examples only: leave --unlabelled away"
    )
