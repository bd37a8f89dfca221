"""What a benchmark is asked for, and what it found, as a file in results/."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from quickstudy.files import write_json
from quickstudy.outer.provenance import commit, environment

RESULTS = Path(__file__).parents[1] / "results"
STARTED = commit()
"""What is measured is the code as it was when this began."""


def options(doc: str | None, name: str) -> argparse.ArgumentParser:
    """A benchmark's options: its own words for --help, and where figures go: `results/NAME.json`."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--out", type=new_file, default=RESULTS / f"{name}.json", help="the file of figures")
    return parser


def new_file(text: str) -> Path:
    """A file that can be written to, said before anything is measured."""
    path = Path(text)
    if not path.parent.is_dir() or path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no file in a folder that is there")
    return path


def count(text: str) -> int:
    """A number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of at least 1")
    return int(text)


def command() -> str:
    """What was asked, but for where the figures go."""
    words = [w for before, w in zip(sys.argv, sys.argv[1:], strict=False) if "--out" not in (before, w)]
    return " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])


def record(out: Path, *, on_data: bool = False, **found: Any) -> None:
    """Write what was found, with the command, the commit and the environment it was found in.

    Args:
        on_data: whether it was found on data in `$QUICKSTUDY_DATA`.
    """
    said = "QUICKSTUDY_DATA=DIR " * on_data + command()
    write_json(out, {"command": said, "commit": STARTED, **found, "environment": environment()})
