"""The short examples, run as scripts with --quick: on real data where it is, else on made-up characters."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
STAND_INS = {
    "qs.data.omniglot()": "qs.data.glyphs(classes=100, size=28)",
    'trainer.fit("omniglot")': 'trainer.fit("glyphs")',
}


def ran(name: str, place: Path, monkeypatch: pytest.MonkeyPatch, *, stand_in: bool = False) -> dict[str, Any]:
    """What a script's names are at its end."""
    monkeypatch.chdir(place)
    monkeypatch.setattr("sys.argv", [name, "--quick"])
    text = (EXAMPLES / f"{name}.py").read_text()
    if stand_in:
        assert any(old in text for old in STAND_INS)
        for old, new in STAND_INS.items():
            text = text.replace(old, new)
    names: dict[str, Any] = {"__name__": name}
    exec(compile(text, name, "exec"), names)
    return names


def better_than_floors(names: dict[str, Any]) -> None:
    ours = names["results"]["prototypes"]
    for floor in ("nearest pixels", "untrained net"):
        assert ours.accuracy > names["results"][floor].accuracy
    assert not set(names["train"].names) & set(names["test"].names)


def better_at_one_label(names: dict[str, Any]) -> None:
    scores = names["scores"]
    assert scores["meta-learned"][0] > max(scores["nearest neighbour"][0], scores["logistic regression"][0])
    assert all(row == sorted(row) for row in scores.values())


CHECKS = {"omniglot_in_minutes": better_than_floors, "your_classes_sklearn": better_at_one_label}


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.real_data
def test_on_real_data(name: str, real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    CHECKS[name](ran(name, tmp_path, monkeypatch))


@pytest.mark.skipif("QUICKSTUDY_DATA" in os.environ, reason="run on real data")
@pytest.mark.parametrize("name", CHECKS)
def test_on_made_up_characters(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    CHECKS[name](ran(name, tmp_path, monkeypatch, stand_in=True))


def test_uncertainty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ran("sinusoid_uncertainty", tmp_path, monkeypatch)
    assert names["doubtful"] > names["certain"]
    assert names["coverage"] > 0.8
    assert (tmp_path / "sinusoids.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", [*CHECKS, "sinusoid_uncertainty"])
def test_cells(name: str) -> None:
    """Percent format: text in comments, code in cells of its own."""
    cells = (EXAMPLES / f"{name}.py").read_text().split("# %%")[1:]
    assert sum(cell.startswith(" [markdown]") for cell in cells) > 3
    for cell in cells:
        if cell.startswith(" [markdown]"):
            lines = cell.splitlines()[1:]
            assert all(line.startswith("#") or not line for line in lines)
