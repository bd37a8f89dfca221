"""What many tests share: made-up data, seeds, float64, real data where it is."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from quickstudy.data.dataset import ClassDataset

torch.set_num_threads(1)
# A suite that was started in the background inherits an ignored Ctrl-C, and so would the runs it interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("shared-machine", deadline=None, max_examples=40)
settings.load_profile("shared-machine")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Nets are initialised from torch's global generator: the same in every test, in any order."""
    torch.manual_seed(0)


@pytest.fixture
def float64() -> Iterator[None]:
    """Nets and random tensors made in this test are float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def chance_untouched() -> Iterator[None]:
    """The test leaves the generators that all code shares, numpy's and torch's, where they were."""

    def states() -> tuple[list[int], list[int]]:
        numpys = np.random.get_state(legacy=False)["state"]["key"]  # noqa: NPY002 (only the old one is shared)
        return numpys.tolist(), torch.get_rng_state().tolist()

    before = states()
    yield
    assert states() == before


@pytest.fixture(scope="session")
def blobs() -> ClassDataset:
    """8 classes of 20 pictures, uint8, 1x16x16: a random template a class, and noise."""
    rng = np.random.default_rng(0)
    templates = rng.uniform(0, 255, (8, 1, 16, 16))
    x = templates[np.repeat(np.arange(8), 20)] * 0.7 + rng.uniform(0, 76, (160, 1, 16, 16))
    return ClassDataset.from_arrays(x.astype(np.uint8), np.repeat(np.arange(8), 20), name="blobs")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the publishers' files, from the environment variable QUICKSTUDY_DATA."""
    place = os.environ.get("QUICKSTUDY_DATA")
    if not place:
        pytest.skip("QUICKSTUDY_DATA is not set: tests on real data are not run")
    return Path(place)
