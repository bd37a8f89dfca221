"""`quickstudy train`: what it prints, and Ctrl-C in a real process."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

LEARN = "train --data digits --learner maml --way 3 --query 2 --meta-batch 2 --body mlp --channels 4 --size 8"
OPTIONS = f"{LEARN} --validate-every 10 --validation-tasks 3 --threads 1 --steps 1 --inner-lr 0.3".split()


def test_a_run_from_the_command_line(command: Callable[..., Any], tmp_path: Path) -> None:
    args = [*OPTIONS, "--iterations", "20", "--out", tmp_path / "a"]
    said = command(*args)
    assert (said.code, said.out) == (0, "")  # progress is for standard error
    assert "validation on 3-way 1-shot tasks, queries a class: 2" in said.err
    assert "best accuracy on meta-validation 0." in said.err
    assert re.search(r"^\d+\.\d min, peak memory \d{2,} MB$", said.err, re.MULTILINE)
    assert f"next: quickstudy evaluate {tmp_path / 'a'}" in said.err
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config["settings"]["steps"] == 1
    assert config["settings"]["inner_lr"] == 0.3
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "a").iterdir()}
    assert command(*args, "--resume").code == 0
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "a").iterdir()} == before


def test_mistakes_about_the_run(
    command: Callable[..., Any], refused: Callable[..., str], tmp_path: Path
) -> None:
    args = [*OPTIONS, "--iterations", "2", "--out", tmp_path / "a"]
    assert command(*args).code == 0
    assert "exists already: choose another --out, or go on with it by --resume" in refused(*args)
    assert "was begun with shot=1, not 2" in refused(*args, "--shot", "2", "--resume")
    assert "was begun with inner_lr=0.3, not 0.1" in refused(*args, "--inner-lr", "0.1", "--resume")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").touch()
    assert "is not a run folder" in refused(*args[:-1], tmp_path / "b", "--resume")


@pytest.mark.skipif(os.name == "nt", reason="Windows sends SIGINT to no single process")
def test_ctrl_c_keeps_the_state(command: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "a"
    args = [*OPTIONS, "--iterations", "100000", "--strategy", "vmap", "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "quickstudy", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not (out / "checkpoint.safetensors").exists():
        time.sleep(0.02)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    said, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert said == ""
    assert (
        err.splitlines()[-1] == "quickstudy: interrupted; what a run folder holds is kept (--resume goes on)"
    )
    assert "Traceback" not in err

    from quickstudy.outer import RunFolder

    done = RunFolder.open(out).load("checkpoint.safetensors")[1]["iteration"]
    assert done > 0
    # Too many steps to do here: the run is given an end that lies close.
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "iterations": done}))
    args[args.index("100000")] = str(done + 5)
    assert command(*args, "--resume").code == 0
    assert json.loads((out / "summary.json").read_text())["iteration"] == done + 5
