"""What `--strategy auto` chooses, and what it loses to the best: a meta-step by each strategy.

    python benchmarks/strategies.py [--threads 2] [--rounds 5] [--cases WORDS] [--compile]
                                    [--out results/strategies.json]

Shapes on which the rule of `inner/choice.py` was not tuned. In one process, round by round, medians. What is
compared is a meta-step of a short run, which is never compiled; with --compile, which takes half an hour, of
a long one, the compiled meta-step being among the strategies, its first (compilation, with nothing kept from
before) apart. The file keeps what is not asked for: other cases, other threads, other lengths of runs.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from record import STARTED, command, count, options, record
from rich.console import Console
from rich.table import Table
from torch import nn

from quickstudy.errors import UserError
from quickstudy.inner import estimate
from quickstudy.inner.allocator import keep_freed_memory
from quickstudy.inner.choice import Strategy, choose
from quickstudy.inner.compiled import prepared
from quickstudy.learners import FOMAML, MAML, Learner, ProtoNet, Reptile
from quickstudy.nets import conv4, mlp, native, resnet
from quickstudy.tasks import Query, Sinusoids, Support, Task

STRATEGIES: tuple[Strategy, ...] = ("loop", "threads", "vmap")


def pictures(tasks: int, way: int, shot: int, query: int, size: int) -> Task:
    """Tasks of random pictures."""

    def part(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.arange(way).repeat(count).expand(tasks, way * count)
        return torch.randn(tasks, way * count, 1, size, size), y.contiguous()

    return Task(Support(*part(shot), way), Query(*part(query)))


def transformer() -> Any:
    layer = nn.TransformerEncoderLayer(28, 4, 64, dropout=0.0, batch_first=True)
    net: Any = nn.Sequential(nn.Flatten(1, 2), nn.TransformerEncoder(layer, 2), nn.Flatten())
    net.features = 28 * 28
    return net


CASES: dict[str, Callable[[], tuple[Learner, Task]]] = {
    "MAML, conv4 of 32, 3-way 2-shot": lambda: (
        MAML(conv4(32), way=3, inner_lr=0.01, steps=3),
        pictures(16, 3, 2, 4, 28),
    ),
    "MAML, conv4 of 48, 8-way 3-shot": lambda: (
        MAML(conv4(48, norm="batch"), way=8, inner_lr=0.01, steps=2),
        pictures(8, 8, 3, 3, 28),
    ),
    "MAML, conv4 of 24, group norm": lambda: (
        MAML(conv4(24, norm="group"), way=5, inner_lr=0.01, steps=2),
        pictures(8, 5, 1, 5, 28),
    ),
    "Prototypes, conv4 of 64, 10-way 5-shot": lambda: (ProtoNet(conv4(64)), pictures(4, 10, 5, 5, 28)),
    "Prototypes, ResNet of 12-24-48, 8-way": lambda: (
        ProtoNet(resnet((12, 24, 48))),
        pictures(5, 8, 2, 3, 28),
    ),
    "MAML, MLP 64-64, pictures": lambda: (
        MAML(mlp(784, (64, 64)), way=5, inner_lr=0.01, steps=5),
        pictures(16, 5, 5, 5, 28),
    ),
    "MAML, MLP 600-300, pictures": lambda: (
        MAML(mlp(784, (600, 300)), way=6, inner_lr=0.01, steps=4),
        pictures(10, 6, 8, 8, 28),
    ),
    "FOMAML, MLP 200-200-200, pictures": lambda: (
        FOMAML(mlp(784, (200, 200, 200)), way=10, inner_lr=0.01, steps=5),
        pictures(12, 10, 3, 6, 28),
    ),
    "MAML, sinusoids": lambda: (
        MAML(mlp(1), way=1, inner_lr=0.01, steps=1),
        Sinusoids(shot=10, query=10).batch(np.arange(25)),
    ),
    "Reptile, conv4 of 32": lambda: (
        Reptile(conv4(32), way=5, inner_lr=0.001, steps=5, inner_batch=10),
        pictures(5, 5, 10, 1, 28),
    ),
    "MAML, transformer of rows": lambda: (
        MAML(transformer(), way=5, inner_lr=0.01, steps=2),
        pictures(8, 5, 1, 5, 28),
    ),
}


def compare(learner: Learner, batch: Task, rounds: int, strategies: Sequence[Strategy]) -> dict[str, Any]:
    """Median seconds by strategy, and what auto chooses, in a long run if one may compile."""
    learner.train()
    batch = learner.prepare(batch, torch.Generator().manual_seed(0))
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds + 1):  # the first is a rehearsal
        for strategy in strategies:
            began = time.perf_counter()
            try:
                estimate(learner, batch, strategy)
            except UserError:
                continue
            if strategy == "compile" and not prepared(learner, batch):
                continue  # by vmap instead
            seconds.setdefault(strategy, []).append(time.perf_counter() - began)
    medians = {k: statistics.median(v[1:]) for k, v in seconds.items()}
    long = 10**6 if "compile" in strategies else 0
    auto = choose(lambda tasks, how: estimate(learner, tasks, how), learner, batch, meta_steps=long)
    auto = "vmap" if auto == "compile" and auto not in medians else auto  # as a run does
    found = {"seconds": medians, "auto": auto, "loses": medians[auto] / min(medians.values()) - 1}
    return found | ({"compiling": seconds["compile"][0]} if "compile" in medians else {})


def main() -> None:
    parser = options(__doc__, "strategies")
    parser.add_argument("--threads", type=count, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=count, default=5)
    parser.add_argument("--compile", action="store_true", help="the compiled meta-step too")
    parser.add_argument("--cases", default="", help="only those in whose names this is")
    given = parser.parse_args()
    if not any(given.cases in name for name in CASES):
        parser.error(f"no case has {given.cases!r} in its name: {'; '.join(CASES)}")
    keep_freed_memory()
    folder = tempfile.TemporaryDirectory()
    os.environ["QUICKSTUDY_CACHE"] = folder.name  # where nothing is compiled yet
    torch.set_num_threads(given.threads)
    native.build(print)
    strategies: tuple[Strategy, ...] = (*STRATEGIES, "compile") if given.compile else STRATEGIES
    before = json.loads(given.out.read_text())["cases"] if given.out.exists() else {}
    cases = {name: dict(before.get(name, {})) for name in CASES}
    what = f"{'long' if given.compile else 'short'} runs, {given.threads} thread{'s' * (given.threads > 1)}"
    how = {"command": command(), "commit": STARTED, "rounds": given.rounds}
    table = Table("case", *strategies, "auto", "loses", title=f"seconds a meta-step, medians; {what}")
    for name, make in CASES.items():
        if given.cases not in name:
            continue
        torch.manual_seed(0)
        found = compare(*make(), given.rounds, strategies)
        cases[name][what] = found | how
        times = (f"{found['seconds'][s]:.3f}" if s in found["seconds"] else "cannot" for s in strategies)
        table.add_row(name, *times, found["auto"], f"{found['loses']:.0%}")
        Console().print(name, found)
        record(given.out, cases=cases)
    Console().print(table)


if __name__ == "__main__":
    main()
