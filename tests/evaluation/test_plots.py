"""The pictures are PNGs, written whole, and show what they are given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from quickstudy.data.dataset import ClassDataset
from quickstudy.errors import UserError
from quickstudy.evaluation.plots import (
    BLUE,
    GREEN,
    RED,
    confusion_matrix,
    most_confused,
    presentation_curve,
    reliability,
    task_picture,
    training_curve,
)
from quickstudy.evaluation.presentations import Presentations
from quickstudy.evaluation.scores import calibration
from quickstudy.learners import build
from quickstudy.nets import conv4
from quickstudy.tasks import ClassTasks, Query, Support, Task
from quickstudy.tasks.regression import Lines


def pixels(path: Path) -> np.ndarray:
    """`[H, W, 3]`; the file is a whole PNG, and alone in its folder."""
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def amount(path: Path, colour: str) -> int:
    """How many pixels have this colour."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((pixels(path) == wanted).all(-1).sum())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "picture.png"


def records(n: int) -> list[dict[str, Any]]:
    return [
        {
            "iteration": 10 * i,
            "train_loss": 2 / i,
            "train_accuracy": 1 - 0.5 / i,
            "val_loss": 3 / i,
            "val_accuracy": 1 - 0.6 / i,
            "val_accuracy_ci95": 0.02,
        }
        for i in range(1, n + 1)
    ]


def test_training_curve(path: Path) -> None:
    training_curve(records(8), path)
    both = pixels(path)
    assert amount(path, BLUE) > 200
    training_curve([{k: v for k, v in r.items() if "accuracy" not in k} for r in records(8)], path)
    assert pixels(path).shape[1] < 0.6 * both.shape[1]  # the loss alone


def test_a_curve_of_one_record_and_of_gaps(path: Path) -> None:
    training_curve(records(1), path)
    assert amount(path, BLUE) > 20
    gaps = records(6)
    gaps[2]["val_loss"] = gaps[2]["train_loss"] = gaps[5]["val_accuracy"] = None
    training_curve(gaps, path)
    training_curve([{**r, "val_loss": None, "val_accuracy": None} for r in records(3)], path)
    assert amount(path, BLUE) == 0


def test_a_curve_of_functions_and_one_of_a_bound(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound that training knows is drawn beside what it bounds; the best of what weights are chosen by."""
    drawn: list[Any] = []
    monkeypatch.setattr("quickstudy.evaluation.plots.save", lambda figure, path: drawn.append(figure))
    both = [{"iteration": i, "train_bound": -2 / i, "train_kl": 0.1, "val_loss": 1 / i} for i in (1, 2, 3)]
    training_curve([{**r, "val_log_likelihood": 0.5 - abs(r["iteration"] - 2)} for r in both], path)
    training_curve([{**r, "val_accuracy": 0.5} for r in both], path)
    functions, classes = (figure.axes for figure in drawn)
    assert [axes.get_title(loc="left") for axes in functions] == [
        "Mean squared error",
        "Log-likelihood, nats a point",
    ]
    assert [axes.get_title(loc="left") for axes in classes] == ["Accuracy", "Loss"]
    assert functions[1].lines[0].get_ydata().tolist() == [-2, -1, -2 / 3]
    assert [text.get_text() for text in functions[1].texts] == ["best 0.50"]
    assert functions[1].lines[2].get_xydata().tolist() == [[2, 0.5]]
    assert classes[1].lines[0].get_ydata().tolist() == [2, 1, 2 / 3]
    names = [text.get_text() for text in classes[1].get_legend().get_texts()]
    assert names == ["meta-training, its bound", "meta-validation"]


def test_no_records_are_no_curve(path: Path) -> None:
    with pytest.raises(UserError, match="no records"):
        training_curve([], path)


def answers(task: Task, wrong: int) -> Tensor:
    """Probabilities that are right but for the first `wrong` queries."""
    y = task.query.y.clone()
    y[:wrong] = (y[:wrong] + 1) % 3
    return torch.nn.functional.one_hot(y, 3) * 0.7 + 0.1


@pytest.mark.parametrize("wrong", [0, 2, 9])
def test_frames_of_a_task_tell_right_from_wrong(blobs: ClassDataset, path: Path, wrong: int) -> None:
    task = ClassTasks(blobs, 3, 1, query=3).task(0)
    task_picture(task, answers(task, wrong), path, queries=3)
    red, green = amount(path, RED), amount(path, GREEN)
    assert (red > 0) == (wrong > 0)
    assert (green > 0) == (wrong < 9)
    if wrong == 2:
        assert green > 2 * red


def test_a_predictor_answers_as_its_probabilities(blobs: ClassDataset, path: Path) -> None:
    task = ClassTasks(blobs, 3, 2, query=3).task(0)
    predictor = build("protonet", conv4(4, size=16, blocks=2), way=3, classes=8).adapt(task.support)
    task_picture(task, predictor, path)
    drawn = pixels(path)
    task_picture(task, predictor.probabilities(task.query.x), path)
    assert np.array_equal(drawn, pixels(path))


@pytest.mark.parametrize("ink", [0.0, 1.0])
def test_ink_is_dark_on_paper(path: Path, ink: float) -> None:
    x = torch.full((2, 1, 12, 12), 1 - ink)
    x[:, :, 4:8, 4:8] = ink
    y = torch.tensor([0, 1])
    task_picture(Task(Support.of(x, y), Query(x, y)), torch.eye(2), path)
    assert pixels(path).mean() > 200


def test_names_of_any_kind(path: Path, blobs: ClassDataset) -> None:
    task = ClassTasks(blobs, 3, 1, query=2).task(0)
    names = ["$a_b$ {^", "子/" + "very_long_" * 9 + "name", " \n"]
    task_picture(task, answers(task, 6), path, names=names)
    confusion_matrix({names[0]: {names[1]: 3, names[2]: 1}}, path)
    assert pixels(path).size


def test_colours_and_ragged_shots(path: Path) -> None:
    x = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    task = Task(Support.of(x, torch.tensor([0, 0, 0, 1, 1])), Query(x[:1], torch.tensor([0])))
    task_picture(task, torch.tensor([[0.2, 0.8]]), path)
    assert amount(path, RED) > 0


def test_what_is_no_picture_is_refused(path: Path) -> None:
    with pytest.raises(UserError, match="only be drawn where examples are pictures"):
        task_picture(Lines().task(0), torch.zeros(10, 1), path)
    assert not path.exists()


def test_reliability(path: Path) -> None:
    reliability(calibration(torch.full((10,), 0.75), torch.arange(10) < 4), path)
    far = amount(path, RED)
    reliability(calibration(torch.full((10,), 0.75), torch.arange(10) < 7), path)
    near = amount(path, RED)
    assert far > near > 0


def test_confusion_matrix(path: Path) -> None:
    counts = {f"c{i}": {f"c{i}": 9, f"c{(i + 1) % 30}": i} for i in range(30)}
    confusion_matrix(counts, path)
    twenty = pixels(path).shape
    confusion_matrix(counts, path, classes=5)
    assert pixels(path).shape[0] < twenty[0] / 2
    with pytest.raises(UserError, match="no confusions"):
        confusion_matrix({}, path)


def test_the_most_confused_classes_come_first() -> None:
    counts = {"a": {"a": 90, "b": 2}, "b": {"b": 5, "c": 7}, "d": {"d": 1}, "e": {"a": 3}}
    assert most_confused(counts, 10) == ["b", "c", "e", "a", "d"]
    assert most_confused(counts, 2) == ["b", "c"]


def test_accuracy_by_presentation(path: Path) -> None:
    presentation_curve(Presentations((0.3, 0.8, 0.9), (0.02, 0.02, 0.01), tasks=50), path, chance=0.2)
    assert amount(path, BLUE) > 200
