"""Peak memory and time of a meta-gradient by its number of inner steps, and what flat memory costs.

    python benchmarks/memory.py [--out results/memory.json] [--plot docs/memory.png]

One 5-way 5-shot task, and eight mapped at once, Conv4 with 20 channels, 28x28, one thread, the kernels that a
run would use. Each point is a process of its own: one meta-step to warm up, then the peak of resident memory
(Linux: VmHWM, reset in between) and the processor's median time over five more, fewer for many inner steps.
The price is that of 5 steps, all methods in one process in turn.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import new_file, options, record
from rich.console import Console
from rich.table import Table

from quickstudy.data.glyphs import glyphs
from quickstudy.inner import Method, Strategy, estimate, flat, implicit, truncated
from quickstudy.inner.allocator import keep_freed_memory
from quickstudy.inner.solve import MethodName
from quickstudy.learners import MAML, Reptile
from quickstudy.nets import conv4, native
from quickstudy.tasks import ClassTasks

ROOT = Path(__file__).parent.parent
METHODS: dict[str, MethodName | Method] = {
    "unrolled": "unrolled",
    "flat": "flat",
    "flat, two graphs": partial(flat, keep=2),
    "first-order": "first-order",
    "truncated(3)": truncated(3),
    "implicit(1.0)": implicit(1.0),
}
ALL = (5, 10, 20, 50, 100)
DRAWN = {
    "unrolled": ALL,
    "flat": (*ALL, 1000),
    **dict.fromkeys(("first-order", "truncated(3)", "implicit(1.0)", "reptile", "evaluate"), ALL),
}
MAPPED = "flat, 8 tasks by vmap"
POINTS = {**DRAWN, MAPPED: (5, 100)}
ROUNDS = 15


def problem(method: str, steps: int) -> Callable[[], object]:
    """A meta-gradient, or an evaluation, of one task (of eight where mapped), to be called."""
    torch.manual_seed(0)
    strategy: Strategy
    tasks, strategy = (8, "vmap") if method == MAPPED else (1, "loop")
    batch = ClassTasks(glyphs(size=28).limit(10), 5, 5, 5).batch(np.arange(tasks)).to(torch.float32)
    body = conv4(20, norm="batch")
    if method == "reptile":
        reptile = Reptile(body, way=5, inner_lr=0.01, steps=steps, inner_batch=25)
        batch = reptile.prepare(batch, torch.Generator().manual_seed(0))
        return lambda: estimate(reptile.train(), batch, "loop")
    learner = MAML(body, way=5, inner_lr=0.01, steps=steps)
    learner.gradient = "flat" if method == MAPPED else METHODS.get(method, "first-order")

    def evaluate() -> object:
        with torch.no_grad():
            return learner.eval().judge(next(batch.unbatch())).metrics

    return evaluate if method == "evaluate" else lambda: estimate(learner.train(), batch, strategy)


def timed(run: Callable[[], object]) -> float:
    """The processor's seconds for a call: a clock's, but for what else the machine does."""
    began = time.process_time()
    run()
    return time.process_time() - began


def point(method: str, steps: int) -> dict[str, float]:
    """The peak of this process's resident memory, in MB, over some meta-steps after one to warm up, and the
    median of their seconds."""
    run = problem(method, steps)
    run()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is from now on
    seconds = statistics.median(timed(run) for _ in range(max(1, min(5, 200 // steps))))
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    return {"MB": peak, "seconds": seconds}


def price() -> dict[str, float]:
    """Milliseconds of a meta-gradient at 5 steps, methods in turn, and medians of what they cost more."""
    runs = {method: problem(method, 5) for method in ("unrolled", "flat", "flat, two graphs")}
    rounds = [{method: timed(run) for method, run in runs.items()} for _ in range(ROUNDS + 2)][2:]
    medians = {method: 1000 * statistics.median(r[method] for r in rounds) for method in runs}
    ratios = {m: statistics.median(r[m] / r["unrolled"] for r in rounds) for m in runs if m != "unrolled"}
    return {**medians, **{f"{method} / unrolled": ratio for method, ratio in ratios.items()}}


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Peak memory and time by inner steps, a line a method."""
    from matplotlib.ticker import FuncFormatter  # here, as it takes memory where that is measured

    from quickstudy.evaluation.style import BLUE, GREEN, GREY, INK, RED, axes_in, figure_of, save

    colours = dict(zip(DRAWN, (RED, BLUE, GREEN, "#9a6a00", "#7b4ea3", "#d06a9a", GREY), strict=True))
    figure = figure_of(9.2, 3.8)
    drawn: list[Any] = []
    for place, (what, title, unit) in enumerate(
        (
            ("MB", "Peak memory of the process", "MB"),
            ("seconds", "Processor time of a meta-step of one task", "s"),
        ),
        1,
    ):
        axes = axes_in(figure, 1, 2, place, title=f"{title}, {unit}", xlabel="inner steps")
        axes.set_xscale("log")
        if what == "seconds":
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        for method, colour in colours.items():
            x, y = zip(*((r["steps"], r[what]) for r in rows if r["method"] == method), strict=True)
            line = axes.plot(x, y, "o-", color=colour, label=method, markersize=3.5, linewidth=1.7)
            drawn += line if place == 1 else []
        axes.set_xticks([5, 10, 20, 50, 100, 1000], ["5", "10", "20", "50", "100", "1,000"])
        axes.minorticks_off()
    figure.legend(
        handles=drawn, loc="outside lower center", ncols=7, frameon=False, fontsize=9, labelcolor=INK
    )
    save(figure, path)


def in_a_process(*arguments: object) -> Any:
    """This file's answer to some arguments, from a fresh process."""
    command = [sys.executable, __file__, *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = options(__doc__, "memory")
    parser.add_argument("--plot", type=new_file, default=ROOT / "docs" / "memory.png")
    parser.add_argument("--point", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--price", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    if given.point or given.price:
        found = point(given.point[0], int(given.point[1])) if given.point else price()
        print(json.dumps({**found, "kernels": "native" if native.built() else "torch"}))
        return
    native.build(print)  # which the processes then find, as a run does
    table = Table(title="one meta-step, or evaluation, of a task")
    for name in ("method", "inner steps", "peak MB", "more than at 5", "seconds"):
        table.add_column(name, justify="right")
    rows: list[dict[str, Any]] = []
    cost = in_a_process("--price")
    kernels = {cost.pop("kernels")}
    for method, steps in ((m, s) for m, all_steps in POINTS.items() for s in all_steps):
        found = in_a_process("--point", method, steps)
        kernels.add(found.pop("kernels"))
        base = next((r["MB"] for r in rows if r["method"] == method), found["MB"])
        rows.append({"method": method, "steps": steps, **found, "more": found["MB"] - base})
        peak, more = f"{found['MB']:.1f}", f"{found['MB'] - base:+.1f}"
        table.add_row(method, str(steps), peak, more, f"{found['seconds']:.2f}")
    (used,) = kernels
    Console().print(table)
    print(f"{used} kernels; at 5 steps, ms:", {k: round(v, 2) for k, v in cost.items()})
    record(given.out, kernels=used, rows=rows, **{"time at 5 steps, ms": cost})
    plot(rows, given.plot)


if __name__ == "__main__":
    main()
