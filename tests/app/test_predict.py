"""`quickstudy predict` on pictures in folders, by a run trained briefly."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from quickstudy.data import ClassDataset, read_image
from quickstudy.learners import Predictor
from quickstudy.outer.load_run import load_run


@pytest.fixture
def parts(drawings: Path, tmp_path: Path) -> tuple[Path, Path]:
    """3 examples of each class to learn from, 2 to classify."""
    return divide(drawings, tmp_path)


def divide(pictures: Path, place: Path) -> tuple[Path, Path]:
    support, query = place / "support", place / "query"
    for folder in sorted(pictures.iterdir()):
        for i, file in enumerate(sorted(folder.iterdir())):
            target = (support if i < 3 else query) / folder.name / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    return support, query


def test_json_is_of_the_documented_shape(
    run: Path, parts: tuple[Path, Path], command: Callable[..., Any]
) -> None:
    support, query = parts
    said = command("predict", run, "--support", support, "--query", query, "--json")
    assert said.code == 0
    answer = json.loads(said.out)  # exactly one object
    assert list(answer) == ["predictions"]
    assert len(answer["predictions"]) == 10
    assert [p["file"] for p in answer["predictions"]] == [str(p) for p in sorted(query.rglob("*.png"))]
    names = sorted(p.name for p in support.iterdir())
    for p in answer["predictions"]:
        assert list(p) == ["file", "label", "probabilities"]
        assert sorted(p["probabilities"]) == names
        assert sum(p["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert p["label"] == max(p["probabilities"], key=p["probabilities"].get)
    assert "5 classes, 3 examples each; 10 to classify" in said.err
    assert "inverted" not in said.err


def test_probabilities_are_those_of_the_library(
    run: Path, parts: tuple[Path, Path], command: Callable[..., Any]
) -> None:
    support, query = parts
    answer = json.loads(command("predict", run, "--support", support, "--query", query, "--json").out)
    folders = sorted(support.iterdir())
    x = torch.stack([torch.tensor(read_image(f)) for d in folders for f in sorted(d.iterdir())])
    q = torch.stack([torch.tensor(read_image(p["file"])) for p in answer["predictions"]])
    expected = load_run(run)[0].adapt(x, torch.arange(5).repeat_interleave(3)).probabilities(q)
    found = torch.tensor([list(p["probabilities"].values()) for p in answer["predictions"]])
    assert torch.allclose(found, expected, atol=1e-5)


def test_photos_are_inverted_and_resized_and_it_says_so(
    run: Path, photos: Path, drawings: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    support, query = divide(photos, tmp_path)
    said = command("predict", run, "--support", support, "--query", query, "--json")
    assert said.code == 0
    err = " ".join(said.err.split())
    assert "pictures brought to 28×28 grey" in err
    assert "inverted to light-on-dark, as the run was trained" in err
    assert len(json.loads(said.out)["predictions"]) == 10
    said = command("predict", run, "--support", drawings, "--query", photos, "--json")
    assert said.err.count("is of another polarity than the examples") == len(list(photos.rglob("*.png")))
    said = command("predict", run, "--support", drawings, "--query", photos, "--polarity", "light-on-dark")
    assert "another polarity" not in said.err
    same = command("predict", run, "--support", support, "--query", support, "--json")
    labels = [(Path(p["file"]).parent.name, p["label"]) for p in json.loads(same.out)["predictions"]]
    assert sum(a == b for a, b in labels) >= 8


def test_a_table_for_people(run: Path, parts: tuple[Path, Path], command: Callable[..., Any]) -> None:
    support, query = parts
    odd = query / "[bold]odd[red].png"
    shutil.copy(next(query.rglob("*.png")), odd)
    said = command("predict", run, "--support", support, "--query", odd)
    assert said.code == 0
    assert "probability" in said.out
    assert "[bold]odd[red].png" in "".join(c for c in said.out if c.isalnum() or c in "[].")


def test_the_other_queries_change_no_prediction(
    run: Path, photos: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    support, query = divide(photos, tmp_path)
    one = next(query.rglob("*.png"))
    rng = np.random.default_rng(0)
    (tmp_path / "noise").mkdir()
    for i in range(30):
        Image.fromarray(rng.integers(0, 256, (30, 30), np.uint8)).save(tmp_path / "noise" / f"{i}.png")

    def first(*queries: Path) -> dict[str, float]:
        said = command("predict", run, "--support", support, "--query", *queries, "--json")
        found = json.loads(said.out)["predictions"][0]["probabilities"]
        assert isinstance(found, dict)
        return found

    assert first(one, tmp_path / "noise") == pytest.approx(first(one), abs=1e-5)


def test_classes_are_named_as_in_a_folder_to_train_on(
    run: Path, parts: tuple[Path, Path], command: Callable[..., Any]
) -> None:
    support, query = parts
    (support / "greek").mkdir()
    for name in ("sign 0", "sign 1"):
        (support / name).rename(support / "greek" / name)
    (query / "__MACOSX").mkdir()
    (query / "__MACOSX" / "0.png").write_text("no picture")
    answer = json.loads(command("predict", run, "--support", support, "--query", query, "--json").out)
    assert list(answer["predictions"][0]["probabilities"]) == list(ClassDataset.from_folder(support).names)
    assert len(answer["predictions"]) == 10


def test_what_is_wrong_is_named(
    run: Path, parts: tuple[Path, Path], tmp_path: Path, refused: Callable[..., str]
) -> None:
    support, query = parts
    assert "none: there is no such" in refused(
        "predict", run, "--support", tmp_path / "none", "--query", query
    )
    assert "none: there is no such" in refused(
        "predict", run, "--support", support, "--query", query / "none"
    )
    shutil.copytree(support / "sign 0", tmp_path / "one" / "only")
    assert "at least 2 are needed" in refused("predict", run, "--support", tmp_path / "one", "--query", query)
    (support / "empty").mkdir()
    assert refused("predict", run, "--support", support, "--query", query) == (
        f"{support / 'empty'}: the class folder holds no pictures; add some or remove it"
    )
    (support / "empty" / "text.png").write_text("no picture")
    assert "text.png: not a picture" in refused("predict", run, "--support", support, "--query", query)
    assert "not a run folder" in refused("predict", tmp_path, "--support", support, "--query", query)


@pytest.mark.parametrize("norm", ["support", "batch"])
def test_many_pictures_go_through_the_net_in_parts_unless_it_is_transductive(
    norm: str, parts: tuple[Path, Path], tmp_path: Path, command: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    options = "--data glyphs --samples-per-class 6 --learner protonet --channels 4 --iterations 1 --query 3"
    more = "--train-way 5 --train-query 2 --validation-tasks 2 --norm"
    assert command("train", *options.split(), *more.split(), norm, "--out", tmp_path / "run").code == 0
    ask = ["predict", tmp_path / "run", "--support", parts[0], "--query", parts[1], "--json"]
    whole = command(*ask)
    assert ("transductive: a prediction depends" in whole.err) == (norm == "batch")
    seen: list[int] = []
    real = Predictor.probabilities

    def counted(self: Predictor, x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return real(self, x)

    monkeypatch.setattr(Predictor, "probabilities", counted)
    monkeypatch.setattr("quickstudy.app.estimators.adapting.AT_ONCE", 4)
    again = command(*ask, "--device", "cpu")
    assert seen == ([4, 4, 2] if norm == "support" else [10])
    first, second = (json.loads(said.out)["predictions"] for said in (whole, again))
    for a, b in zip(first, second, strict=True):
        assert a["probabilities"] == pytest.approx(b["probabilities"], abs=1e-5)


def test_a_run_that_goes_on_is_told(
    run: Path, parts: tuple[Path, Path], tmp_path: Path, command: Callable[..., Any]
) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    said = command("predict", tmp_path / "run", "--support", parts[0], "--query", parts[1])
    assert said.code == 0
    assert "has not come to its end" in said.err
