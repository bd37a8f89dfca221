"""What is installed from a wheel: pure Python, typed, with its data."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
from hatchling.build import build_wheel

ROOT = Path(__file__).parents[1]


def test_the_wheel_holds_all_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    name = build_wheel(os.fspath(tmp_path))
    assert name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(tmp_path / name) as wheel:
        held = set(wheel.namelist())
        [entry] = [n for n in held if n.endswith("entry_points.txt")]
        assert b"quickstudy = quickstudy.app.cli:main" in wheel.read(entry)
    source = ROOT / "src"
    wanted = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*")
        if path.is_file() and path.suffix in {".py", ".json", ".typed", ".c", ".html", ".js", ".css", ".svg"}
    }
    assert wanted <= held
    assert {"quickstudy/py.typed", "quickstudy/data/splits/omniglot_vinyals.json"} <= wanted
    assert any(n.endswith("licenses/LICENSE") for n in held)
