"""Many processes, one run: each computes its share of the tasks, and one sum makes all agree.

Synchronous data parallelism over tasks (Goyal et al. 2017, arXiv 1706.02677, does so over examples). Every
process holds the same weights, takes the same steps of the meta-optimiser, and sends one buffer a meta-step,
whatever the net: the sums of the meta-gradient, the losses, the metrics and the statistics.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from quickstudy.errors import ProcessError, UserError
from quickstudy.outer.wire import from_bytes, to_bytes

T = TypeVar("T")
TIMEOUT = timedelta(minutes=30)
"""After this long without a word another process counts as lost; preparing data takes less."""
VARIABLES = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
"""What torchrun tells each process that it starts."""


@dataclass(frozen=True)
class World:
    """The processes that work on a run together, seen from one of them.

    Args:
        rank: which one this is.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the first process, which alone writes the run folder and shows how it goes."""
        return self.rank == 0

    def share(self, n: int) -> range:
        """Which of `n` tasks are this process's: parts in order that differ by one at most, and may be empty.

        >>> [list(World(rank, 3).share(5)) for rank in range(3)]
        [[0], [1, 2], [3, 4]]
        """
        return range(self.rank * n // self.size, (self.rank + 1) * n // self.size)

    def mean(self, means: Sequence[Tensor], own: int, total: int) -> list[Tensor]:
        """The means over all tasks, from those over each process's own, by one all-reduce of one flat buffer.

        All receive the same bits. Every process gives tensors of the same shapes, also where `own` is 0.

        Args:
            means: over the `own` tasks of this process.
            total: how many tasks there are in all processes.

        Raises:
            ProcessError: another process ended.

        >>> World().mean([torch.ones(2)], own=3, total=3)
        [tensor([1., 1.])]
        """
        if self.size == 1:
            return list(means)
        # A share of weight 0 is left out even where it holds NaN.
        sums = [m.flatten() * own if own else torch.zeros_like(m).flatten() for m in means]
        buffer = torch.cat(sums)
        with _others_living():
            dist.all_reduce(buffer)
        parts = buffer.div_(total).split([m.numel() for m in means])
        return [part.view_as(m).to(m.dtype) for part, m in zip(parts, means, strict=True)]

    def gathered(self, items: list[T]) -> list[T]:
        """The items of all processes, in the order of their ranks, on every one: see `wire.to_bytes`.

        Raises:
            ProcessError: another process ended.

        >>> World().gathered([1, 2])
        [1, 2]
        """
        if self.size == 1:
            return items
        own = _buffer(items)
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        with _others_living():
            dist.all_gather(lengths, torch.tensor([len(own)]))
            longest = max(int(n) for n in lengths)
            parts = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
            dist.all_gather(parts, torch.nn.functional.pad(own, (0, longest - len(own))))
        told = (part[: int(n)].numpy().tobytes() for part, n in zip(parts, lengths, strict=True))
        return [item for part in told for item in from_bytes(part)]

    def led(self, find: Callable[[], T]) -> T:
        """What `find` returns in the first process, told to all; the others do not call it.

        Raises:
            ProcessError: another process ended.

        >>> World().led(lambda: 5)
        5
        """
        if self.size == 1:
            return find()
        told = _buffer([find()]) if self.leads else torch.empty(0, dtype=torch.uint8)
        length = torch.tensor([len(told)])
        with _others_living():
            dist.broadcast(length, src=0)
            told = told if self.leads else torch.empty(int(length), dtype=torch.uint8)
            dist.broadcast(told, src=0)
        return from_bytes(told.numpy().tobytes())[0]


def world() -> World:
    """The processes this one works with: those of torch's process group, or itself alone.

    >>> world()
    World(rank=0, size=1)
    """
    if dist.is_available() and dist.is_initialized():
        return World(dist.get_rank(), dist.get_world_size())
    return World()


@contextmanager
def joined() -> Iterator[World]:
    """Within this block the processes that torchrun started work together; without torchrun nothing happens.

    Sums of tensors on the processor go through gloo, on GPUs through nccl; each process of a machine has the
    GPU of its number. Where several fail, the first raises its error and the others exit quietly with 2.

    Raises:
        UserError: the others cannot be reached.

    >>> with joined() as here:
    ...     here.size
    1
    """
    if world().size > 1 or not os.environ.keys() >= VARIABLES or os.environ["WORLD_SIZE"] == "1":
        yield world()
        return
    own_gpu = local_rank() < torch.cuda.device_count()
    if own_gpu:
        torch.cuda.set_device(local_rank())
    try:
        store, rank, size = next(iter(rendezvous("env://", timeout=TIMEOUT)))
        store = _of_this_attempt(store, rank, size)
        backend = "cpu:gloo,cuda:nccl" if own_gpu else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    except RuntimeError as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise UserError(f"cannot meet the other processes at {where}: {_first_line(error)}") from error
    try:
        yield world()
    except (Exception, KeyboardInterrupt) as error:
        if _told(store):
            raise SystemExit(2) from error
        raise
    finally:
        dist.destroy_process_group()


def _of_this_attempt(store: dist.Store, rank: int, size: int) -> dist.Store:
    """The part of a store that processes of earlier attempts did not write to.

    torchrun keeps its store when it restarts, and with it the addresses of the processes that died. The first
    process names the attempt; each of the others asks for the name by a word not used before, and confirms.
    """
    word = secrets.token_hex(8)
    if rank:
        store.set(f"asked/{rank}", word)
        attempt = store.get(f"named/{word}").decode()  # waits for it
        store.set(f"{attempt}/confirmed/{rank}", "")
        return dist.PrefixStore(attempt, store)
    missing, until = set(range(1, size)), time.monotonic() + TIMEOUT.total_seconds()
    while missing:
        for other in missing:
            if store.check([f"asked/{other}"]):  # maybe a dead one's word: another follows
                asked = store.get(f"asked/{other}").decode()
                store.set(f"named/{asked}", word)
        missing -= {other for other in missing if store.check([f"{word}/confirmed/{other}"])}
        if time.monotonic() > until:
            raise RuntimeError(f"{len(missing)} of {size} did not come")
        time.sleep(0.02)
    return dist.PrefixStore(word, store)


def local_rank() -> int:
    """The number of this process among those of its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def _told(store: dist.Store) -> bool:
    """Whether another process failed before, and so tells the user why."""
    with suppress(RuntimeError):  # the store is gone with whoever kept it
        return bool(store.add("failed", 1) > 1)
    return False


@contextmanager
def _others_living() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise ProcessError(
            f"another process of this run has ended ({_first_line(error)}): start all anew "
            "(train --resume goes on)"
        ) from error


def _buffer(items: list[Any]) -> Tensor:
    return torch.frombuffer(bytearray(to_bytes(items)), dtype=torch.uint8)


def _first_line(error: Exception) -> str:
    """What torch says, without its source file and its advice."""
    return re.sub(r"^(.*\[/\S+\] )?(.*?)(\. .*)?$", r"\2", str(error).strip().partition("\n")[0])
