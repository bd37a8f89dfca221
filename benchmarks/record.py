"""What a benchmark found, as a file in results/."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from quickstudy.files import write_json
from quickstudy.outer.provenance import commit, environment


def record(out: Path, *, data: bool = False, **found: Any) -> None:
    """Write what was found, with the command, the commit and the environment it was found in.

    Args:
        data: whether it was found on data in `$QUICKSTUDY_DATA`.
    """
    script = f"python benchmarks/{Path(sys.argv[0]).name}"
    command = " ".join([*(["QUICKSTUDY_DATA=DIR"] if data else []), script, *sys.argv[1:]])
    write_json(out, {"command": command, "commit": commit(), **found, "environment": environment()})
