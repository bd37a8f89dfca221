"""Initial weights and dropout as functions of a seed, without a trace in torch's global generators."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's generators start at `seed` within the block and are put back after it.

    Torch's layers draw initial weights and dropout from them; there is no other way to seed these.
    """
    gpus = torch.cuda.default_generators if torch.cuda.is_initialized() else ()
    generators = [torch.default_generator, *gpus]
    before = [generator.get_state() for generator in generators]
    for generator in generators:
        generator.manual_seed(seed)
    try:
        yield
    finally:
        for generator, state in zip(generators, before, strict=True):
            generator.set_state(state)
