"""`quickstudy report`: what the page says is what was measured, and it is whole by itself."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import quickstudy as qs
from quickstudy.evaluation.paired import paired
from quickstudy.evaluation.reports import subjects


class Page(HTMLParser):
    """Tables as rows of texts, addresses that are loaded, tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.loaded: list[str] = []
        self.tags: set[str] = set()
        self.inside: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        given = dict(attrs)
        if tag == "img":
            assert given["alt"]
        self.loaded += [v for k in ("src", "href") if (v := given.get(k))]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = None if tag == self.inside else self.inside

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def runs(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The run, and one like it by another seed and with a dangerous name."""
    folder = tmp_path_factory.mktemp("reported")
    config = qs.TrainConfig.from_json(qs.RunFolder.open(run).config)
    other = folder / "<b>other & x"
    qs.train(qs.TrainConfig(**{**config.json(), "seed": 1, "threads": 1}), other)
    shutil.copytree(run, folder / "glyphs")
    return folder / "glyphs", other


def test_the_page_says_what_was_measured(
    runs: tuple[Path, Path], tmp_path: Path, command: Callable[..., Any]
) -> None:
    words = ["report", *runs, "--out", tmp_path / "r", "--tasks", "20", "--grid", "4"]
    said = command(*words)
    assert (said.code, said.out) == (0, ""), said.err
    assert "measuring glyphs" in said.err
    text = (tmp_path / "r" / "report.html").read_text()
    page = Page(text)
    first, second = subjects(runs, 20, 4)
    for s in (first, second):
        result = qs.evaluate(s.learner, s.tasks, 20)
        (row,) = [row for row in page.rows if row[:2] == [s.name, "protonet"]]
        assert row[3] == f"{100 * (result.accuracy or 0):.1f} ± {100 * result.ci95:.1f} %"
        assert s.measured["by_task"] == list(result.by_task)
        assert s.worst[0] == min(range(20), key=lambda i: result.by_task[i])
        (nearest,) = qs.floors(s.config, s.config.splits(), source=s.tasks, names=["pixel-nn"], n_tasks=20)
        e = nearest.evaluation
        below = page.rows[page.rows.index(row) + 1]
        assert below[1:5:2] == ["pixel-nn", f"{100 * (e.accuracy or 0):.1f} ± {100 * e.ci95:.1f} %"]
    gap = paired(first.measured["by_task"], second.measured["by_task"])
    (row,) = [row for row in page.rows if " − " in row[0]]
    assert row[1] == f"{100 * abs(gap.mean):.2f} ± {100 * gap.ci95:.2f} points"
    assert ("is better" in row[3]) == gap.clear
    assert "<b>" not in text.replace("&lt;b&gt;", "")
    assert page.tags.isdisjoint({"script", "link", "iframe"})
    assert all(address.startswith("data:image/png;base64,") for address in page.loaded)
    drawn = {base64.b64decode(address.split(",")[1]) for address in page.loaded}
    assert drawn == {path.read_bytes() for path in (tmp_path / "r" / "pictures").iterdir()}
    assert "quickstudy train --data glyphs --learner protonet" in text
    (line,) = re.findall(r"quickstudy train .*--seed 1 .*", text)
    assert "--channels 4" in line
    assert line.endswith("--out &#x27;runs/&lt;b&gt;other &amp; x&#x27;")  # as a shell takes it
    (last,) = re.findall(r"quickstudy report .*", text)
    assert last.startswith("quickstudy report runs/glyphs &#x27;runs/&lt;b&gt;other")
    assert last.endswith(" --tasks 20 --grid 4</pre>")
    assert str(tmp_path.parent) not in text
    assert "measuring" not in command(*words).err


def test_seeds_are_one_group_and_other_data_are_not_compared(runs: tuple[Path, Path]) -> None:
    first, second = subjects(runs, 4, 0)
    assert first.group == second.group
    assert first.comparable(second) is None
    assert first.grid == {}


def test_floors_that_were_measured_are_in_the_table(
    runs: tuple[Path, Path], tmp_path: Path, command: Callable[..., Any]
) -> None:
    _, config, folder = qs.load_run(runs[0])
    splits = config.splits()
    source = config.problem(splits.test, seed=2)
    how: dict[str, Any] = {"n_tasks": 30, "search_tasks": 2, "cache": folder.path / "floors"}
    (floor,) = qs.floors(config, splits, source=source, names=["untrained"], **how)
    assert command("report", runs[0], "--out", tmp_path, "--tasks", "4", "--grid", "0").code == 0
    rows = Page((tmp_path / "report.html").read_text()).rows
    (row,) = [row for row in rows if row[1:2] == ["untrained"]]
    e = floor.evaluation
    assert row[3:5] == [f"{100 * (e.accuracy or 0):.1f} ± {100 * e.ci95:.1f} %", "30"]
    for other in (
        config.problem(splits.test, seed=2, query=1),
        config.problem(splits.test, seed=7),
    ):
        qs.floors(config, splits, source=other, names=["pixel-nn"], **{**how, "n_tasks": 40})
    qs.floors(
        config, splits, source=source, names=["untrained"], statistics="batch", **{**how, "n_tasks": 40}
    )
    assert command("report", runs[0], "--out", tmp_path, "--tasks", "4", "--grid", "0").code == 0
    page = Page((tmp_path / "report.html").read_text())
    assert [row for row in page.rows if row[1:2] in (["untrained"], ["pixel-nn"])] == [
        row for row in rows if row[1:2] in (["untrained"], ["pixel-nn"])
    ]


def test_what_is_wrong_is_named(runs: tuple[Path, Path], tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "is not a run folder" in refused("report", tmp_path)
    assert "an interval needs 2 tasks" in refused("report", runs[0], "--tasks", "1")
    (tmp_path / "file").touch()
    few = ("--tasks", "4", "--grid", "0")
    assert "cannot make the folder" in refused("report", runs[0], *few, "--out", tmp_path / "file")
    damaged = tmp_path / "damaged"
    shutil.copytree(runs[0], damaged)
    for kept in (damaged / "reports").iterdir():
        kept.write_text(json.dumps([]))
    assert "is damaged" in refused("report", damaged, *few)
