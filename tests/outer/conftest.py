"""A run so small that it can be made some hundred times."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

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
        summary = json.loads((path / "summary.json").read_bytes())
        summary.pop("seconds")
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


@pytest.fixture
def together(tmp_path: Path) -> Callable[..., list[Any]]:
    """A function that calls `work(rank)` in `size` processes that work together as under torchrun. It returns
    what each returned, or the error it ended with.

    They are forked, since Python and torch take seconds to start. `join=False` leaves it to `work` to join.
    """

    def run(size: int, work: Callable[[int], Any], join: bool = True) -> list[Any]:
        # As torchrun's agent, this process keeps the store that the others meet at.
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "WORLD_SIZE": str(size)}
        told["TORCHELASTIC_USE_AGENT_STORE"] = "True"
        results = [tmp_path / f"result-{rank}" for rank in range(size)]
        small_digits()  # what is slow only once is over
        children = []
        for rank, result in enumerate(results):
            child = os.fork()
            if child == 0:
                try:
                    os.environ.update(told, RANK=str(rank), LOCAL_RANK=str(rank))
                    torch.save(outcome_of(work, rank, join), result)
                finally:
                    os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
        return [torch.load(result, weights_only=False) for result in results]

    def outcome_of(work: Callable[[int], Any], rank: int, join: bool) -> Any:
        try:
            with joined() if join else nullcontext():
                return work(rank)
        except BaseException as error:
            return error

    return run
