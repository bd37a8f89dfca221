"""A run so small that it can be made some hundred times."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch

from quickstudy.data import ClassDataset, digits
from quickstudy.outer.config import TrainConfig
from quickstudy.outer.distributed import joined
from quickstudy.outer.run_folder import RunFolder


@lru_cache
def small_digits() -> ClassDataset:
    return digits(size=8).limit(12)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Callable[..., TrainConfig]:
    """A function that makes the options of a tiny run; its data are loaded once for all tests."""
    monkeypatch.setattr("quickstudy.outer.config.load_data", lambda *a, **k: small_digits())

    def make(**changes: Any) -> TrainConfig:
        options: dict[str, Any] = {
            "data": "digits",
            "learner": "protonet",
            "way": 3,
            "query": 2,
            "train_query": 2,
            "iterations": 6,
            "validate_every": 2,
            "validation_tasks": 3,
            "meta_batch": 2,
            "outer_lr": 0.05,
            "body": "mlp",
            "channels": 4,
            "size": 8,
            "threads": 1,
        }
        return TrainConfig(**{**options, **changes})

    return make


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after each meta-step instead of every 20 seconds."""
    monkeypatch.setattr(sys.modules["quickstudy.outer.meta_train"], "CHECKPOINT_SECONDS", 0.0)


@pytest.fixture
def outcome() -> Callable[[Path], dict[str, Any]]:
    """A function that reads all of a run that must not depend on how often it was stopped."""

    def read(path: Path) -> dict[str, Any]:
        tensors, meta = RunFolder(path).load("checkpoint.safetensors")
        meta.pop("seconds")
        meta.pop("core_seconds")
        summary = json.loads((path / "summary.json").read_bytes())
        summary.pop("seconds")
        summary.pop("core_seconds")
        assert summary.pop("peak_memory_mb") > 50
        return {
            "files": sorted(p.name for p in path.iterdir()),
            "best": (path / "best.safetensors").read_bytes(),
            "metrics": (path / "metrics.jsonl").read_bytes(),
            "config": (path / "config.json").read_bytes(),
            "summary": summary,
            "checkpoint": {k: v.tolist() for k, v in tensors.items()},
            "meta": meta,
        }

    return read


@pytest.fixture
def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


KEEPER = """
import sys
from torch.distributed import TCPStore

store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
print(store.port, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="session")
def store_port() -> Iterator[int]:
    """Where the store listens at which processes meet; as torchrun's agent's, it outlives them.

    A process of its own keeps it: one of the store's threads looks up the names of who connects, and a
    process forked meanwhile would inherit the resolver's lock, closed for ever.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", KEEPER], stdin=pipe, stdout=pipe, text=True) as keeper:
        assert keeper.stdout is not None
        yield int(keeper.stdout.readline())
        keeper.communicate()


@pytest.fixture
def together(store_port: int, tmp_path: Path) -> Callable[..., list[Any]]:
    """A function that calls `work(rank)` in `size` processes that work together as under torchrun. It returns
    what each returned, or the error it ended with.

    They are forked, since Python and torch take seconds to start. `join=False` leaves it to `work` to join.
    """

    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork processes")

    def run(size: int, work: Callable[[int], Any], join: bool = True) -> list[Any]:
        told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store_port), "WORLD_SIZE": str(size)}
        told["TORCHELASTIC_USE_AGENT_STORE"] = "True"
        results = [tmp_path / f"result-{rank}" for rank in range(size)]
        small_digits()  # what is slow only once is over
        children = set()
        for rank, result in enumerate(results):
            child = os.fork()
            if child == 0:
                try:
                    os.environ.update(told, RANK=str(rank), LOCAL_RANK=str(rank))
                    torch.save(outcome_of(work, rank, join), result)
                finally:
                    os._exit(0)
            children.add(child)
        until = time.monotonic() + 300
        while children and time.monotonic() < until:
            children -= {child for child in children if os.waitpid(child, os.WNOHANG)[0]}
            time.sleep(0.01)
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        assert not children, "processes that worked together did not end"
        return [torch.load(result, weights_only=False) for result in results]

    def outcome_of(work: Callable[[int], Any], rank: int, join: bool) -> Any:
        try:
            with joined() if join else nullcontext():
                return work(rank)
        except BaseException as error:
            return error

    return run
