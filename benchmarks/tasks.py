"""Tasks a second: our sampler beside easyfsl's sampler and collate, and beside reading image files.

    python benchmarks/tasks.py [--peer DIR] [--out results/tasks.json]

All three end in a float32 tensor ready for the net, on one core, over the same Omniglot (or Glyphs where
QUICKSTUDY_DATA is not set). easyfsl is installed without its dependencies into DIR (.bench/easyfsl by
default); it imports torchvision and pandas, which its sampler does not use, so stubs stand in for them.
"""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
from PIL import Image
from record import options, record

from quickstudy.data import ClassDataset, omniglot
from quickstudy.data.glyphs import glyphs
from quickstudy.errors import DataError
from quickstudy.inner.allocator import keep_freed_memory
from quickstudy.tasks import ClassTasks

ROUNDS, SECONDS = 7, 1.0


def rate(task: Callable[[], int]) -> float:
    """Tasks a second over about SECONDS; `task` makes some and returns how many."""
    done, begun = 0, time.perf_counter()
    while (spent := time.perf_counter() - begun) < SECONDS:
        done += task()
    return done / spent


def ours(data: ClassDataset, way: int, shot: int, query: int) -> Callable[[], int]:
    """A batch of 32 tasks at a time, as meta-training asks for them."""
    source, at = ClassTasks(data, way, shot, query), 0

    def task() -> int:
        nonlocal at
        source.batch(np.arange(at, at + 32))
        at += 32
        return 32

    return task


def easyfsl(peer: Path, data: ClassDataset, way: int, shot: int, query: int) -> Callable[[], int]:
    """The peer on a float32 tensor in memory: one task at a time, its only way."""
    sys.path.insert(0, str(peer))
    for name in ("torchvision", "torchvision.transforms", "torchvision.datasets", "pandas", "tqdm"):
        sys.modules.setdefault(name, MagicMock())
    # Its sampler calls a constructor argument that torch's base class no longer has.
    base: Any = torch.utils.data.Sampler
    base.__init__ = lambda self, data_source=None: None
    from easyfsl.samplers import TaskSampler

    x, y = data.x.float() / 255, data.labels().tolist()

    class InMemory(torch.utils.data.Dataset):
        def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
            return x[i], y[i]

        def get_labels(self) -> list[int]:
            return y

    random.seed(0)
    held = InMemory()
    sampler = TaskSampler(held, n_way=way, n_shot=shot, n_query=query, n_tasks=10**9)
    indices = iter(sampler)

    def task() -> int:
        sampler.episodic_collate_fn([held[i] for i in next(indices)])
        return 1

    return task


def files(folder: Path, data: ClassDataset, way: int, shot: int, query: int) -> Callable[[], int]:
    """The same from picture files, opened when a task needs them, as most loaders do."""
    for c in range(len(data)):
        (folder / str(c)).mkdir()
        for i, example in enumerate(data.examples(c)):
            big = Image.fromarray(example[0].numpy()).resize((105, 105))
            big.save(folder / str(c) / f"{i}.png")
    rng = np.random.default_rng(0)

    def picture(c: int, i: int) -> np.ndarray:
        with Image.open(folder / str(c) / f"{i}.png") as image:
            return np.asarray(image.convert("L").resize((28, 28)), np.float32) / 255

    def task() -> int:
        classes = rng.choice(len(data), way, replace=False)
        rows = [picture(c, i) for c in classes for i in rng.permutation(20)[: shot + query]]
        torch.from_numpy(np.stack(rows))
        return 1

    return task


def main() -> None:
    parser = options(__doc__, "tasks")
    parser.add_argument("--peer", type=Path, default=Path(".bench/easyfsl"))
    given = parser.parse_args()
    if not (given.peer / "easyfsl").exists():
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--target",
            given.peer,
            "easyfsl",
        ]
        subprocess.run(list(map(str, command)), check=True)
    torch.set_num_threads(1)
    keep_freed_memory()
    try:
        data = omniglot(download=False)
    except DataError as error:
        print(f"Glyphs instead of Omniglot: {error}", file=sys.stderr)
        data = glyphs(classes=1623)
    report = []
    with tempfile.TemporaryDirectory() as folder:
        few = data.subset(range(60))
        for way, shot, query in ((5, 5, 5), (5, 1, 15), (20, 1, 5)):
            place = Path(folder) / f"{way}-{shot}-{query}"
            place.mkdir()
            makers = {
                "quickstudy": ours(data, way, shot, query),
                "easyfsl": easyfsl(given.peer, data, way, shot, query),
                "image files": files(place, few, way, shot, query),
            }
            rounds = [{name: rate(task) for name, task in makers.items()} for _ in range(ROUNDS)]
            medians = {name: statistics.median(r[name] for r in rounds) for name in makers}
            ratio = {
                name: statistics.median(r["quickstudy"] / r[name] for r in rounds)
                for name in list(makers)[1:]
            }
            report.append(
                {"way": way, "shot": shot, "query": query, "tasks_per_second": medians, "ratio": ratio}
            )
            shown = ", ".join(f"{k} {v:,.0f}" for k, v in medians.items())
            times = ", ".join(f"{v:.1f}x {k}" for k, v in ratio.items())
            print(f"{way}-way {shot}-shot {query}-query, tasks a second: {shown}; {times}", flush=True)
    title = "tasks a second, in memory, on one core; ratios are medians of rounds side by side"
    record(given.out, on_data=True, title=title, data=data.name, rounds=ROUNDS, settings=report)


if __name__ == "__main__":
    main()
