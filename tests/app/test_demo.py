"""`quickstudy demo`, cut short: the table, the pictures, what to type next."""

from __future__ import annotations

import sys

from PIL import Image

from quickstudy.app.cli import main


def test_demo_leaves_a_table_pictures_and_a_run(tmp_path, capsys):
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), "--tasks", "6", "--iterations", "3"]) == 0
    said = capsys.readouterr().out
    for row in ("pixel-nn", "untrained", "scratch", "pretrain-finetune", "meta-learned", "±"):
        assert row in said, row
    assert "--data omniglot" in said
    for name in ("task.png", "curve.png"):
        with Image.open(out / name) as picture:
            assert min(picture.size) > 200
    assert main(["evaluate", str(out), "--tasks", "4", "--json"]) == 0


def test_demo_keeps_its_promise(tmp_path, monkeypatch, capsys):
    """At full length: every control below 75 %, the meta-learned row at least 10 points above the best."""
    module = sys.modules["quickstudy.app.demo"]
    measured, table = {}, module.floors_table

    def noted(rows, learner):
        measured["controls"] = {row.name: row.evaluation.accuracy for row in rows}
        measured["learner"] = learner[1].accuracy
        return table(rows, learner)

    monkeypatch.setattr(module, "floors_table", noted)
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 0
    assert len(measured["controls"]) == 5
    best = max(measured["controls"].values())
    assert best < 0.75
    assert measured["learner"] > best + 0.10
