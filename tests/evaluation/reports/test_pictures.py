"""The pictures show the numbers: read back from the axes that are drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quickstudy.evaluation.reports import pictures
from quickstudy.evaluation.reports.pictures import curves, group_curve, heat_map, published, six_curves


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that would be written."""
    figures: list[Any] = []
    monkeypatch.setattr(pictures, "save", lambda figure, path: figures.append(figure))
    return figures


def records(*accuracies: float) -> list[dict[str, Any]]:
    """Of a run that validated every 100 meta-steps."""
    told = enumerate(accuracies, 1)
    return [{"iteration": 100 * i, "val_accuracy": a, "train_accuracy": a + 0.1} for i, a in told]


def test_a_group_is_of_the_steps_that_all_have() -> None:
    steps, mean, low, high = group_curve([records(0.2, 0.4, 0.6), records(0.4, 0.2)], "val_accuracy")
    assert steps.tolist() == [100, 200]
    np.testing.assert_allclose([mean, low, high], [[0.3, 0.3], [0.2, 0.2], [0.4, 0.4]])
    assert [len(part) for part in group_curve([records(0.2), []], "val_accuracy")] == [0, 0, 0, 0]
    gap = [{"iteration": 1, "val_accuracy": None}, {"iteration": 2, "val_accuracy": 0.5}]
    assert group_curve([gap], "val_accuracy")[0].tolist() == [2]


def test_curves_have_a_line_a_group(drawn: list[Any], tmp_path: Path) -> None:
    curves({"a": [records(0.2, 0.4), records(0.4, 0.6)], "b$": [records(0.1)]}, tmp_path / "x.png")
    lines = drawn[0].axes[0].get_lines()
    assert [line.get_label() for line in lines] == ["a (2 seeds)", "b"]
    np.testing.assert_allclose(lines[0].get_ydata(), [0.3, 0.5])


def test_a_heat_map_tells_every_cell(drawn: list[Any], tmp_path: Path) -> None:
    grid = {(2, 1): (0.9, 0.01), (2, 5): (0.95, 0.02), (5, 1): "too few", (5, 5): (0.8, 0.03)}
    heat_map(grid, tmp_path / "x.png")
    texts = {t.get_position(): t.get_text() for t in drawn[0].axes[0].texts}
    assert texts == {(0, 0): "90.0 ± 1.0", (1, 0): "95.0 ± 2.0", (0, 1): "–", (1, 1): "80.0 ± 3.0"}


def test_the_published_curves_are_behind_ours(drawn: list[Any], tmp_path: Path) -> None:
    """Six of theirs, with what their report says of the last epoch; ours by epochs of 100 meta-steps."""
    six_curves({1: records(0.2, 0.4)}, 5, 20, tmp_path / "x.png")
    for axes, last in zip(drawn[0].axes, ((0.6602, 0.8676, 0.9037), (0.5986, 0.7554, 0.7471)), strict=True):
        lines = [line for line in axes.get_lines() if len(line.get_xdata()) == 50]
        assert tuple(line.get_ydata()[-1] for line in lines) == last
        (own,) = [line for line in axes.get_lines() if line.get_label() == "1-shot, here"]
        assert list(own.get_xdata()) == [1, 2]
    assert len(published()["runs"]) == 12
