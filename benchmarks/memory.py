"""Peak memory of a meta-gradient by its number of inner steps, and the time that flat memory costs.

    python benchmarks/memory.py [--out results/memory.json]

One 5-way 5-shot task, Conv4 with 20 channels, 28x28, one thread. Each point is a process of its own: one
meta-step to warm up, then the peak of resident memory over two more (Linux: VmHWM, reset in between). The
time price is that of 5 steps, both methods in one process in turn, as a median.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from quickstudy.data.glyphs import glyphs
from quickstudy.inner import estimate
from quickstudy.inner.allocator import keep_freed_memory
from quickstudy.learners import MAML
from quickstudy.nets import conv4, native
from quickstudy.outer.provenance import commit, environment
from quickstudy.tasks import ClassTasks

POINTS = [
    *(("unrolled", steps) for steps in (5, 20, 50, 100)),
    *(("flat", steps) for steps in (5, 20, 50, 100, 1000)),
    *(("evaluate", steps) for steps in (5, 100)),
]
ROUNDS = 15


def problem(method: str, steps: int) -> Any:
    """A meta-gradient, or an evaluation, of one task, to be called."""
    torch.manual_seed(0)
    batch = ClassTasks(glyphs(size=28).limit(10), 5, 5, 5).batch(np.arange(1)).to(torch.float32)
    body = conv4(20, norm="batch")
    learner = MAML(
        body, way=5, inner_lr=0.01, steps=steps, gradient="flat" if method == "flat" else "unrolled"
    )

    def evaluate() -> object:
        with torch.no_grad():
            return learner.eval().judge(next(batch.unbatch())).metrics

    return evaluate if method == "evaluate" else lambda: estimate(learner.train(), batch, "loop")


def peak(method: str, steps: int) -> float:
    """The peak of this process's resident memory, in MB, over two meta-steps after one to warm up."""
    run = problem(method, steps)
    run()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is from now on
    run()
    run()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def price() -> dict[str, float]:
    """Milliseconds of a meta-gradient at 5 steps, unrolled and flat in turn."""
    runs = {method: problem(method, 5) for method in ("unrolled", "flat")}
    seconds: dict[str, list[float]] = {method: [] for method in runs}
    for number in range(ROUNDS + 2):
        for method, run in runs.items():
            began = time.perf_counter()
            run()
            if number > 1:
                seconds[method].append(time.perf_counter() - began)
    medians = {k: 1000 * statistics.median(v) for k, v in seconds.items()}
    ratio = statistics.median(f / u for f, u in zip(seconds["flat"], seconds["unrolled"], strict=True))
    return {**medians, "flat / unrolled": ratio}


def in_a_process(*arguments: object) -> Any:
    """This file's answer to some arguments, from a fresh process."""
    command = [sys.executable, __file__, *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "results" / "memory.json")
    parser.add_argument("--point", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--price", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    if given.point:
        print(json.dumps(peak(given.point[0], int(given.point[1]))))
        return
    if given.price:
        print(json.dumps(price()))
        return
    kernels = "native" if native.build(print) else "torch"
    table = Table(title="peak resident memory, MB")
    for name in ("method", "inner steps", "MB", "more than at 5"):
        table.add_column(name, justify="right")
    rows: list[dict[str, Any]] = []
    for method, steps in POINTS:
        megabytes = in_a_process("--point", method, steps)
        base = next((r["MB"] for r in rows if r["method"] == method), megabytes)
        rows.append({"method": method, "steps": steps, "MB": megabytes, "more": megabytes - base})
        table.add_row(method, str(steps), f"{megabytes:.1f}", f"{megabytes - base:+.1f}")
    cost = in_a_process("--price")
    Console().print(table)
    print("time at 5 steps, ms:", {k: round(v, 2) for k, v in cost.items()})
    report = {
        "command": "python benchmarks/memory.py",
        "commit": commit(),
        "kernels": kernels,
        "rows": rows,
        "time at 5 steps, ms": cost,
        "environment": environment(),
    }
    given.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
