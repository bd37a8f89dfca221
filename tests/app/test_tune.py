"""`quickstudy tune`: what it prints and keeps, its mistakes, a kill, and processes that share the work."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from quickstudy.errors import UserError
from quickstudy.evaluation.style import BLUE, GREEN

LEARN = "tune --data digits --learner maml --way 3 --query 2 --meta-batch 2 --body mlp --channels 4 --size 8"
OPTIONS = (
    f"{LEARN} --iterations 6 --validate-every 3 --validation-tasks 20 --threads 1 --strategy vmap".split()
)


def test_a_search_from_the_command_line(command: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "a"
    args = [*OPTIONS, "--steps", "2", "--search", "outer-lr=0.01..1", "inner_lr=0.1..1"]
    args += ["--trials", "4", "--pruner", "none", "--out", out]
    said = command(*args)
    assert said.code == 0, said
    assert "validation on 3-way 1-shot tasks, queries a class: 2" in said.err
    assert re.search(r"^trial 0 of 4: outer_lr 0\.\d+, inner_lr 0\.4$", said.err, re.MULTILINE)
    assert "4 trials: 4 complete" in said.out
    assert "what mattered: " in said.out
    best = json.loads((out / "best.json").read_text())
    assert best["config"]["settings"]["steps"] == 2
    assert f"the best run: {out}/trial-00{best['trial']} (quickstudy evaluate" in said.out
    # The printed command trains the same again.
    (line,) = re.findall(r"^  quickstudy (train .*)$", said.out, re.MULTILINE)
    assert line == best["command"].removeprefix("quickstudy ")
    assert command(*shlex.split(line)).code == 0
    again = json.loads((tmp_path / "a-best" / "summary.json").read_text())
    assert again["best"] == best["accuracy"]
    assert command("evaluate", best["run"], "--tasks", "2").code == 0
    for name, colours in (("history", (BLUE, GREEN)), ("options", (GREEN,)), ("importance", (BLUE,))):
        with Image.open(out / f"{name}.png") as image:
            pixels = np.asarray(image.convert("RGB"))
        for colour in colours:
            wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
            assert (pixels == wanted).all(-1).sum() > 20, (name, colour)
    as_json = command(*args, "--resume", "--json")
    assert json.loads(as_json.out) == best
    assert "trial 0" not in as_json.err  # nothing is left to do


def test_what_is_given_is_not_searched_unless_asked_for(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def look(config: Any, out: Path, space: dict[str, Any], **options: Any) -> None:
        seen.append((set(space), config.settings["steps"]))
        raise UserError("seen")

    monkeypatch.setattr("quickstudy.app.tune.tune", look)
    for more in ([], ["--steps", "2"], ["--steps=2", "--search", "steps=1..5"]):
        assert refused(*OPTIONS, "--out", "never", *more) == "seen"
    assert seen == [({"outer_lr", "inner_lr", "steps"}, 1), ({"outer_lr", "inner_lr"}, 2), ({"steps"}, 2)]


def test_mistakes(refused: Callable[..., str], tmp_path: Path) -> None:
    out = ("--out", tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").touch()
    assert "b exists already: choose another --out" in refused(*OPTIONS, "--out", tmp_path / "b")
    assert "--search steps: say NAME=LOW..HIGH, or NAME=A,B,C" in refused(*OPTIONS, "--search", "steps", *out)
    assert "--search names steps twice" in refused(*OPTIONS, "--search", "steps=1..2", "steps=1,2", *out)
    assert "did you mean 'inner_lr'" in refused(*OPTIONS, "--search", "inner-rl=0.1..1", *out)
    assert "maml has no option --distance; protonet, " in refused(*OPTIONS, "--distance", "cosine", *out)
    assert "the storage cannot be used" in refused(*OPTIONS, "--storage", "nothing://here", *out)
    assert "trials must be at least 1, not 0" in refused(*OPTIONS, "--trials", "0", *out)
    assert not (tmp_path / "a").exists()


def started(*args: object) -> subprocess.Popen[str]:
    """The command as a process."""
    words = [sys.executable, "-m", "quickstudy", *map(str, args)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such locks")
def test_a_kill_and_two_processes(tmp_path: Path) -> None:
    """One process is killed within a trial; two others share what is left, and that trial goes on."""
    out = tmp_path / "a"
    args = [*OPTIONS, "--trials", "4", "--out", out, "--resume", "--pruner", "none"]
    args[args.index("--iterations") + 1] = "150"
    args[args.index("--validate-every") + 1] = "25"
    first = started(*args)
    while first.poll() is None and not list(out.glob("trial-*/checkpoint.safetensors")):
        time.sleep(0.05)
    first.kill()
    first.communicate(timeout=60)
    assert first.returncode == -9
    begun = [
        json.loads(line) for line in (out / "trial-000" / "metrics.jsonl").read_text().splitlines()
    ]  # what was seen then is seen still
    both = [started(*args), started(*args)]
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    runs = [set(re.findall(r"^trial (\d+) of 4", err, re.MULTILINE)) for _, err in said]
    assert runs[0] | runs[1] == set("0123")
    assert not runs[0] & runs[1]
    assert sum("going on from meta-step" in err for _, err in said) == 1
    trials = json.loads((out / "trials.json").read_text())
    assert [t["outcome"] for t in trials] == ["complete"] * 4
    for record, (step, accuracy) in zip(begun, trials[0]["curve"], strict=False):
        assert (record["iteration"], record["val_accuracy"]) == (step, accuracy)
    assert len(list(out.glob("trial-*"))) == 1
