"""`quickstudy demo`, cut short: the table, the pictures, what to type next."""

from __future__ import annotations

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
