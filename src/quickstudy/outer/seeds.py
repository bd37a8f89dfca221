"""Initial weights as a function of a seed, without leaving a trace in torch's global generator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's generator starts at `seed` within the block and is put back after it.

    Torch's layers draw their initial weights from the global generator; there is no other way to seed them.
    """
    before = torch.get_rng_state()
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before)
