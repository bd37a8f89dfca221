"""What a run notes of its surroundings."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from quickstudy.outer.provenance import forget_peak, peak_memory_mb


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux forgets a peak")
def test_a_peak_is_counted_from_where_it_was_forgotten() -> None:
    forget_peak()
    before = peak_memory_mb()
    array = np.ones(25_000_000)  # 200 MB
    with_it = peak_memory_mb()
    del array
    after = peak_memory_mb()
    forget_peak()
    again = peak_memory_mb()
    assert before is not None
    assert with_it is not None
    assert again is not None
    assert 150 < with_it - before < 250
    assert after == with_it
    assert again < with_it - 150
