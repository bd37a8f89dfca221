"""`quickstudy demo` at full length: its promise, the table, the pictures, what to type next."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from quickstudy.app.cli import main


def test_demo_keeps_its_promise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every control below 75 %, the meta-learned row at least 10 points above the best of them."""
    module: Any = importlib.import_module("quickstudy.app.demo")
    measured: dict[str, float] = {}
    table = module.floors_table

    def noted(rows: Any, learner: Any) -> Any:
        measured.update({row.name: row.evaluation.accuracy for row in rows}, learner=learner[1].accuracy)
        return table(rows, learner)

    monkeypatch.setattr(module, "floors_table", noted)
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    learner = measured.pop("learner")
    assert len(measured) == 5
    assert max(measured.values()) < 0.75
    assert learner > max(measured.values()) + 0.10
    for row in (*measured, "meta-learned", "±"):
        assert row in said, row
    assert "--data omniglot" in said
    for name in ("task.png", "curve.png"):
        with Image.open(out / name) as picture:
            assert min(picture.size) > 200
    assert main(["evaluate", str(out), "--tasks", "4", "--json"]) == 0
