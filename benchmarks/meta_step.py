"""One meta-step beside the peers: MAML, Conv4, 28x28, 5 inner steps, 25 tasks, as many queries as shots.

    python benchmarks/meta_step.py [--channels 20] [--modes second first evaluate]
                                   [--settings 5x1 5x5 10x1 20x1] [--rounds 5] [--out results/meta_step.json]
                                   [--device cuda]

Peers (a plain torch loop, higher, torchopt, JAX with jit and vmap) come from their packages into an
environment of the benchmark's own (.bench/peers), where this library is installed too; every contender is a
process of its own. Each is first checked, in float64, to compute the same as the plain loop. Then all take
one step in turn, round by round, so that each ratio is one of the same minutes; figures are medians. A
contender runs with one and with two threads and counts by the better; first steps (compilation) stand apart.
On a GPU each is one process, and this library takes part in bf16 and compiled too; float32 products are the
libraries' own there (TF32 in convolutions), JAX is left out where its CUDA build is not installed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import command, count, options
from rich.console import Console
from rich.table import Table

from quickstudy.nets import conv4
from quickstudy.outer.provenance import commit, environment

HERE = Path(__file__).parent
ENVIRONMENT = HERE.parent / ".bench" / "peers"
PEERS = ("torch", "higher", "torchopt", "jax", "jaxlib")
TASKS, STEPS = 25, 5
AGREED = 1e-8
CONTENDERS = [
    ("quickstudy", "ours"),
    ("quickstudy", "standard"),
    ("plain", "standard"),
    ("plain", "ours"),
    ("higher", "standard"),
    ("higher", "ours"),
    ("torchopt", "standard"),
    ("torchopt", "ours"),
    ("jax", "standard"),
    ("jax", "ours"),
]
ON_GPU = [*CONTENDERS, ("bf16", "ours"), ("compiled", "ours")]
console = Console()


def peers() -> Path:
    """The Python of the benchmark's environment, made once."""
    python = ENVIRONMENT / "bin" / "python"
    if not (ENVIRONMENT / ".ready").exists():
        console.print(f"installing the peers into {ENVIRONMENT} (once, some minutes)")
        constraints = HERE.parent / "constraints.txt"
        for command in (
            [sys.executable, "-m", "venv", str(ENVIRONMENT)],
            [str(python), "-m", "pip", "install", "-q", "-c", str(constraints), "torch"],
            [str(python), "-m", "pip", "install", "-q", "-c", str(constraints), "-e", str(HERE.parent)],
            [str(python), "-m", "pip", "install", "-q", *PEERS[1:]],
        ):
            subprocess.run(command, check=True)
        (ENVIRONMENT / ".ready").touch()
    return python


def check_gpu(python: str | Path) -> None:
    """End where this Python's torch sees no GPU."""
    found = subprocess.run(
        [str(python), "-c", "import torch; raise SystemExit(not torch.cuda.is_available())"]
    )
    if found.returncode:
        raise SystemExit(f"--device cuda: the torch of {python} sees no CUDA GPU here")


def versions(python: Path) -> dict[str, str]:
    """Which releases of the peers are installed."""
    ask = "import sys, importlib.metadata as m; print(*map(m.version, sys.argv[1:]))"
    found = subprocess.check_output([str(python), "-c", ask, *PEERS], text=True)
    return dict(zip(PEERS, found.split(), strict=True))


def told(name: str, device: str, threads: int) -> dict[str, str]:
    """A contender's environment: its libraries read from it how many threads to use, when they are loaded."""
    own = {"OMP_NUM_THREADS": str(threads)}
    if name == "jax" and device == "cuda":
        own |= {"JAX_PLATFORMS": "cuda", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # others need memory too
    elif name == "jax":
        one = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        own |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": one if threads == 1 else ""}
    return {**os.environ, **own}


class Contender:
    """A contender's process."""

    def __init__(
        self, python: Path, name: str, net: str, mode: str, device: str, threads: int, setting: Path
    ) -> None:
        self.name, self.net, self.threads = name, net, threads
        self.words = setting.with_name(f"{name}-{net}-{threads}.txt")  # a file: a full pipe would stop it
        script, pipe = str(HERE / "contenders.py"), subprocess.PIPE
        with self.words.open("w") as words:  # the process keeps it open
            self.process = subprocess.Popen(
                [str(python), script, name, net, mode, device, str(threads), str(setting)],
                stdin=pipe,
                stdout=pipe,
                stderr=words,
                text=True,
                env=told(name, device, threads),
            )
        self.seconds: list[float] = []

    def step(self, check: Path | None = None) -> float | None:
        """Seconds of one step; None where the contender has no such mode, or failed."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(f"check {check}\n" if check else "step\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return None
        line = self.process.stdout.readline()
        while line and not line.startswith("{"):
            line = self.process.stdout.readline()
        return json.loads(line)["seconds"] if line else None

    def last_words(self) -> str:
        """What the process said when it ended by itself."""
        self.process.wait()
        return (self.words.read_text().strip().splitlines() or ["it ended without a word"])[-1]

    def end(self) -> None:
        """Stop the process."""
        self.process.kill()
        self.process.wait()


def make_setting(path: Path, way: int, shot: int, channels: int, dtype: Any, tasks: int = TASKS) -> None:
    """Initial weights, and tasks of random pictures."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(conv4(channels, norm="batch"), torch.nn.Linear(channels, way))
    weights = {f"w{i}": p.detach().contiguous().numpy().astype(dtype) for i, p in enumerate(net.parameters())}
    n, rng = way * shot, np.random.default_rng(0)
    pictures = {k: rng.standard_normal((tasks, n, 1, 28, 28), dtype=dtype) for k in ("xs", "xq")}
    labels = {k: np.tile(np.arange(n) % way, (tasks, 1)) for k in ("ys", "yq")}
    arrays: dict[str, Any] = {**weights, **pictures, **labels}
    np.savez(path, **arrays)


def operations(mode: str, way: int, shot: int, channels: int) -> float:
    """The multiplications and additions of a meta-step's convolutions, none done twice.

    A layer's way back is two convolutions, by its weights and by its input; the way back of that is six.
    Nobody asks for the first layer's gradient by the pictures. All else is a few percent.
    """
    pairs = zip([1, channels, channels, channels], (28, 14, 7, 3), strict=True)
    first, *rest = (2 * 9 * inputs * channels * size**2 for inputs, size in pairs)
    there, back, twice = first + sum(rest), first + 2 * sum(rest), 2 * first + 6 * sum(rest)
    step = there + back + (twice if mode == "second" else 0)
    query = there + (back if mode != "evaluate" else 0)
    return TASKS * way * shot * (STEPS * step + query)


def peak(device: str) -> float:
    """Operations a second of the fastest matrix product that torch computes here, on all processors; on a GPU
    in TF32."""
    size, wait = (8192, torch.cuda.synchronize) if device == "cuda" else (2048, lambda: None)
    torch.backends.cuda.matmul.allow_tf32 = True
    a, fastest = torch.randn(size, size, device=device), math.inf
    wait()
    for _ in range(8):
        began = time.perf_counter()
        a @ a
        wait()
        fastest = min(fastest, time.perf_counter() - began)
    return 2 * size**3 / fastest


def far(found: Path, wanted: Path) -> float:
    """The relative distance of what two contenders computed."""
    a, b = (
        np.concatenate([np.load(p)[k].ravel() for k in sorted(np.load(p).files, key=lambda k: int(k[4:]))])
        for p in (found, wanted)
    )
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def checked(
    python: Path, device: str, mode: str, way: int, shot: int, channels: int, folder: Path
) -> dict[tuple[str, str], float]:
    """Each contender that takes part, and its relative distance from the plain loop on three tasks.

    In float64: in float32 some ReLU or pooling chooses otherwise in one of them, which after five steps is a
    difference of percents.

    Raises:
        SystemExit: one computes something else.
    """
    setting, off = folder / "check.npz", {}
    make_setting(setting, way, shot, channels, np.float64, tasks=3)
    every = CONTENDERS if device == "cpu" else ON_GPU
    for name, net in sorted(every, key=lambda c: c != ("plain", "standard")):  # that one first
        contender, kept = Contender(python, name, net, mode, device, 1, setting), folder / f"{name}-{net}.npz"
        if contender.step(kept) is not None:
            off[name, net] = 0.0 if name == "bf16" else far(kept, folder / "plain-standard.npz")
            if off[name, net] > AGREED:
                raise SystemExit(f"{name}, {net} net: {off[name, net]:.0e} off the plain loop")
        else:
            console.print(f"{name}, {net} net, takes no part: {contender.last_words()}")
        contender.end()
    return off


def compare(
    python: Path, device: str, mode: str, way: int, shot: int, channels: int, rounds: int
) -> dict[str, Any]:
    """The median seconds of each contender at one setting, those of a net and thread count apart."""
    with tempfile.TemporaryDirectory() as folder:
        off = checked(python, device, mode, way, shot, channels, Path(folder))
        setting = Path(folder) / "setting.npz"
        make_setting(setting, way, shot, channels, np.float32)
        every = [
            Contender(python, name, net, mode, device, threads, setting)
            for name, net in off
            for threads in ((1, 2) if device == "cpu" else (1,))
        ]
        first = {c: c.step() or math.inf for c in every}
        warm = {c: c.step() or math.inf for c in every}
        running = []
        for c in every:  # of two thread counts only the better goes on, unless they are close
            if warm[c] > 1.3 * min(warm[o] for o in every if (o.name, o.net) == (c.name, c.net)):
                c.end()
            else:
                running.append(c)
        for _ in range(rounds):
            for c in running:
                c.seconds.append(c.step() or math.inf)
        for c in running:
            c.end()
    best: dict[str, Any] = {}
    for c in sorted(running, key=lambda c: statistics.median(c.seconds)):
        seconds = statistics.median(c.seconds)
        found = {"seconds": seconds, "threads": c.threads, "off": off[c.name, c.net], "first": first[c]}
        best.setdefault(f"{c.name}, {c.net} net", found)
    return best


def ratios(best: dict[str, Any]) -> dict[str, float]:
    """How many times as fast this library is as the fastest peer."""
    ours, user = best["quickstudy, ours net"]["seconds"], best["quickstudy, standard net"]["seconds"]

    def fastest(net: str) -> float:
        own = ("quickstudy", "bf16", "compiled")
        return min(v["seconds"] for k, v in best.items() if k.endswith(net) and not k.startswith(own))

    standard, given = fastest("standard net"), fastest("ours net")
    return {"standard": standard / ours, "given": given / ours, "user": standard / user}


def mean(values: Iterable[float]) -> float:
    """Geometric."""
    logs = [math.log(v) for v in values]
    return math.exp(sum(logs) / len(logs))


def shown(mode: str, device: str, channels: int, rows: dict[str, dict[str, Any]]) -> Table:
    """A table of seconds and ratios; beside seconds the number of threads, on a GPU tasks a second."""

    def cell(found: dict[str, Any]) -> str:
        seconds = found["seconds"]
        if device == "cuda":
            return f"{seconds:.4f} ({TASKS / seconds:.0f} tasks/s)"
        return f"{seconds:.3f} ({found['threads']})"

    table = Table(title=f"{mode}, {channels} channels: seconds a meta-step of {TASKS} tasks (median)")
    table.add_column("contender")
    for setting in rows:
        table.add_column(setting, justify="right")
    for name, net in ON_GPU:
        key = f"{name}, {net} net"
        cells = [row["best"].get(key) for row in rows.values()]
        if any(cells):
            table.add_row(key, *(cell(c) if c else "" for c in cells))
    for name, words in (
        ("standard", "fastest peer, standard net / ours"),
        ("given", "fastest peer, our net / ours"),
        ("user", "fastest peer / ours, both with the standard net"),
    ):
        table.add_row(words, *(f"{row['ratios'][name]:.2f}x" for row in rows.values()), end_section=True)
    ours = (row["best"]["quickstudy, ours net"]["seconds"] / row["floor"] for row in rows.values())
    table.add_row("ours / arithmetic alone at the machine's peak", *(f"{v:.1f}x" for v in ours))
    return table


def setting_of(text: str) -> str:
    """WAYxSHOT, both at least 1."""
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text} is no WAYxSHOT, such as 5x1")
    return text


def main() -> None:
    parser = options(__doc__, "meta_step")
    parser.add_argument("--channels", type=count, nargs="+", default=[20])
    parser.add_argument("--modes", nargs="+", default=["second"], choices=["second", "first", "evaluate"])
    settings = ["5x1", "5x5", "10x1", "20x1"]
    parser.add_argument("--settings", type=setting_of, nargs="+", default=settings, help="WAYxSHOT")
    parser.add_argument("--rounds", type=count, default=5)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="cuda: meta_step_cuda.json")
    given = parser.parse_args()
    device, out = given.device, given.out
    if device == "cuda" and out == parser.get_default("out"):
        out = out.with_stem("meta_step_cuda")
    if device == "cuda":
        check_gpu(sys.executable)  # before anything is installed
    python = peers()
    if device == "cuda":
        check_gpu(python)
    kept = json.loads(out.read_text()) if out.exists() else {"tables": {}}
    highest = "peak operations a second"
    for channels in given.channels:
        for mode in given.modes:
            table = kept["tables"].setdefault(f"{mode}, {channels} channels", {"rows": {}})
            rows: dict[str, dict[str, Any]] = table["rows"]  # settings that are not asked for stay
            for setting in given.settings:
                kept[highest] = max(kept.get(highest, 0.0), peak(device))  # others may have disturbed one
                way, shot = map(int, setting.split("x"))
                best = compare(python, device, mode, way, shot, channels, given.rounds)
                rows[setting] = {
                    "best": best,
                    "ratios": ratios(best),
                    "floor": operations(mode, way, shot, channels) / kept[highest],
                    "command": command(),
                    "commit": commit(),
                    "rounds": given.rounds,
                }
                console.print(f"{mode}, {channels} channels, {setting}: {rows[setting]['ratios']}")
                kinds = ("standard", "given", "user")
                means = {k: mean(row["ratios"][k] for row in rows.values()) for k in kinds}
                table["geometric means"] = means
                kept["environment"] = environment() | {"peers": versions(python)}
                if device == "cuda":
                    kept["environment"]["gpu"] = torch.cuda.get_device_name()
                out.write_text(json.dumps(kept, indent=1) + "\n")
            console.print(shown(mode, device, channels, rows))
            console.print("geometric means", {k: round(v, 2) for k, v in means.items()})


if __name__ == "__main__":
    main()
