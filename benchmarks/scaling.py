"""Meta-steps a second of one and of two one-thread processes, beside what the cost model predicts.

    python benchmarks/scaling.py [--rounds 9] [--wait 60] [--out results/scaling.json]

MAML of one inner step, conv4 of 20 channels, 5-way 5-shot, 24 tasks a meta-step. Both processes live
throughout, and every round measures all in turn, so that what else the machine does falls on all alike. A
round waits, up to --wait seconds in all, for others to leave the cores alone; rounds in which they used more
than QUIET of a core are left out. Figures are medians of the rest.
`docs/distributed.md` derives the model. No meta-step of two processes that talk is used for its numbers:

    s + τ·b   the time of a meta-step of b tasks in one process, from b = 24 and b = 12, in a loop
    c         how much longer 12 tasks take where the other process computes too, without a word to it
    α, β      latency and bandwidth of an all-reduce, from a buffer of one number and a large one
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from record import count, options, record

import quickstudy as qs
from quickstudy.inner.allocator import keep_freed_memory
from quickstudy.outer.checkpoint import State
from quickstudy.outer.distributed import World, joined, world
from quickstudy.outer.optimizers import make_optimizer, make_schedule

TASKS, CHANNELS, WAY, SHOT, QUERY = 24, 20, 5, 5, 5
LARGE = 1 << 20
"""Numbers in the buffer that bandwidth is measured with: 4 MB."""
DELAYS = (0.0, 0.05, 0.5)
"""Seconds added to every all-reduce."""
QUIET = 0.1
STRATEGY: Any = "loop"
outer: Any = sys.modules["quickstudy.outer.meta_train"]


def stepper(learner: qs.Learner, tasks: qs.ClassTasks) -> Callable[[int], float]:
    """A function that takes a meta-step of so many tasks, as `meta_train` does, and returns its seconds."""
    optimizer = make_optimizer("adam", [*learner.parameters()], 1e-3)
    state = State(learner, optimizer, make_schedule("constant", optimizer, 1))

    def step(size: int) -> float:
        begun, i = time.perf_counter(), state.history.iteration
        outcome, gradient = outer.meta_gradient(learner, tasks, i, size, STRATEGY, 0)
        outer.finite_norm(outcome, gradient, i, gradient)
        state.step(outcome, gradient, 1.0, 0.0)
        return time.perf_counter() - begun

    return step


@contextmanager
def alone() -> Iterator[None]:
    """Within this block a meta-step is of one process."""
    outer.world = World
    try:
        yield
    finally:
        outer.world = world


@contextmanager
def delayed(seconds: float) -> Iterator[None]:
    """Within this block an all-reduce takes so much longer."""
    group: Any = dist
    reduce = group.all_reduce

    def slow(buffer: torch.Tensor) -> None:
        time.sleep(seconds)
        reduce(buffer)

    group.all_reduce = slow if seconds else reduce
    try:
        yield
    finally:
        group.all_reduce = reduce


def all_reduce(numbers: int, times: int) -> float:
    """Seconds of an all-reduce of so many float32 numbers, the median."""
    buffer, found = torch.zeros(numbers), []
    for _ in range(times):
        dist.barrier()
        begun = time.perf_counter()
        dist.all_reduce(buffer)
        found.append(time.perf_counter() - begun)
    return statistics.median(found)


def busy() -> float:
    """Seconds that this machine's cores have computed, all programs together; 0 where nobody counts them."""
    try:
        user, nice, system = map(int, Path("/proc/stat").read_text().split()[1:4])
    except OSError:
        return 0.0
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def quiet(until: float) -> bool:
    """Wait until nobody has used the cores for a second; False where that was not so by `until`."""
    while time.monotonic() < until:
        before = busy()
        time.sleep(1)
        if busy() - before < QUIET:
            return True
    return False


def measured(step: Callable[[int], float], here: World) -> dict[str, float]:
    """One round: seconds by what was done. A process that has nothing to do sleeps at a barrier."""
    found: dict[str, float] = {}
    begun, all_before, own_before = time.monotonic(), busy(), time.process_time()
    for name, size in (("one process", TASKS), ("half the tasks", TASKS // 2)):
        dist.barrier()
        with alone():
            found[name] = step(size) if here.leads else 0.0
    dist.barrier()
    with alone():
        found["half beside another"] = step(TASKS // 2)
    for delay in DELAYS:
        dist.barrier()
        with delayed(delay):
            found[f"two processes, {delay:g} s"] = step(TASKS)
    found["a word"] = all_reduce(1, 50)
    found["a large buffer"] = all_reduce(LARGE, 5)
    own = sum(here.gathered([time.process_time() - own_before]))
    found["others"] = max(0.0, busy() - all_before - own) / (time.monotonic() - begun)
    return found


def ring(processes: int, numbers: int, latency: float, bandwidth: float) -> float:
    """Seconds of a ring all-reduce of float32 numbers (Patarasuk and Yuan 2009)."""
    rounds = 2 * (processes - 1)
    return rounds * latency + rounds / processes * 4 * numbers / bandwidth


def model(rounds: list[dict[str, float]], numbers: int) -> dict[str, Any]:
    """What is measured, what the model says of it, and where scaling stops."""
    middle = {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
    whole, half = middle["one process"], middle["half the tasks"]
    per_task = (whole - half) / (TASKS - TASKS // 2)
    serial = max(0.0, whole - TASKS * per_task)
    contention = statistics.median(r["half beside another"] / r["half the tasks"] for r in rounds)
    latency = middle["a word"] / 2
    bandwidth = 4 * LARGE / max(1e-9, middle["a large buffer"] - middle["a word"])
    ratios = []
    for delay in DELAYS:
        name = f"two processes, {delay:g} s"
        found = sorted(r["one process"] / r[name] for r in rounds)
        predicted = whole / (
            contention * (serial + per_task * TASKS / 2) + ring(2, numbers, latency, bandwidth) + delay
        )
        ratio = statistics.median(found)
        ratios.append(
            {
                "delay_seconds": delay,
                "meta_steps_per_second": 1 / middle[name],
                "ratio": ratio,
                "ratio_of_the_rounds_middle_half": [found[len(found) // 4], found[-1 - len(found) // 4]],
                "predicted": predicted,
                "error": predicted / ratio - 1,
            }
        )
    return {
        "one_process": {
            "meta_steps_per_second": 1 / whole,
            "seconds_a_task": per_task,
            "seconds_besides": serial,
        },
        "contention": contention,
        "all_reduce": {"numbers": numbers, "latency_seconds": latency, "bytes_per_second": bandwidth},
        "two_processes": ratios,
        "scaling_ends_at": {
            f"{1e6 * a:g} µs, {b / 1e9:g} GB/s": stops(serial, per_task, numbers, a, b)
            for a, b in ((latency, bandwidth), (50e-6, 1.25e9), (5e-6, 12.5e9))
        },
    }


def stops(serial: float, per_task: float, numbers: int, latency: float, bandwidth: float) -> dict[str, int]:
    """How many processes are fastest, and up to how many each does at least half of what the first did."""

    def seconds(p: int) -> float:
        return serial + per_task * -(-TASKS // p) + ring(p, numbers, latency, bandwidth)

    counts = range(1, TASKS + 1)
    half = [p for p in counts if seconds(1) / (p * seconds(p)) >= 0.5]
    return {"fastest": min(counts, key=seconds), "half_efficient": max(half)}


def main() -> None:
    parser = options(__doc__, "scaling")
    parser.add_argument("--rounds", type=count, default=9)
    parser.add_argument("--wait", type=float, default=60, help="seconds to wait for free cores")
    given = parser.parse_args()
    if "RANK" not in os.environ:
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *sys.argv]
        raise SystemExit(subprocess.call(command, env={**os.environ, "OMP_NUM_THREADS": "1"}))
    torch.set_num_threads(1)
    keep_freed_memory()
    with joined() as here:
        tasks = qs.tasks(qs.data.glyphs(classes=100), way=WAY, shot=SHOT, query=QUERY)
        learner = qs.MAML(qs.nets.conv4(channels=CHANNELS), way=WAY, inner_lr=0.1, steps=1)
        step = stepper(learner, tasks)
        measured(step, here)  # what is slow only once is over
        every: list[dict[str, Any]] = []
        until = time.monotonic() + given.wait
        for _ in range(given.rounds):
            if not here.led(lambda: quiet(until)) and len(every) >= 3:
                break
            every.append(measured(step, here))
        rounds = [r for r in every if r["others"] <= QUIET] or every
        numbers = sum(p.numel() for p in learner.parameters())
        if not here.leads:
            return
    result = {
        "title": "meta-steps a second of two one-thread processes beside one, and as predicted",
        "setting": f"MAML, one inner step, conv4 {CHANNELS}, {WAY}-way {SHOT}-shot, {QUERY} queries a class, "
        f"meta-batch {TASKS}",
        "rounds": len(rounds),
        "rounds_left_out": len(every) - len(rounds),
        "cores_others_used": statistics.median(r["others"] for r in rounds),
        **model(rounds, numbers),
    }
    one = result["one_process"]["meta_steps_per_second"]
    print(f"one process: {one:.3f} meta-steps/s; contention of two: {result['contention']:.3f}")
    print(
        f"{len(rounds)} of {len(every)} rounds; others used {result['cores_others_used']:.2f} cores in them"
    )
    print(f"{'delay':>8}{'meta-steps/s':>14}{'ratio':>8}{'middle half':>16}{'predicted':>11}{'error':>8}")
    for row in result["two_processes"]:
        low, high = row["ratio_of_the_rounds_middle_half"]
        print(
            f"{1000 * row['delay_seconds']:>5.0f} ms{row['meta_steps_per_second']:>14.3f}{row['ratio']:>8.3f}"
            f"{f'{low:.3f} to {high:.3f}':>16}{row['predicted']:>11.3f}{100 * row['error']:>+7.1f}%"
        )
    for network, ends in result["scaling_ends_at"].items():
        print(f"{network}: fastest with {ends['fastest']}, half efficient up to {ends['half_efficient']}")
    record(given.out, **result)


if __name__ == "__main__":
    main()
