"""What a run notes of its surroundings."""

from __future__ import annotations

import mmap
import sys

import pytest

from quickstudy.outer.provenance import forget_peak, peak_memory_mb

SIZE = 200 * 2**20


# Elsewhere there is no /proc, `forget_peak` does nothing and a peak stays one.
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux forgets a peak")
def test_a_peak_is_counted_from_where_it_was_forgotten() -> None:
    forget_peak()
    before = peak_memory_mb()
    with mmap.mmap(-1, SIZE) as memory:  # goes back to the system, whatever the allocator keeps
        for page in range(0, SIZE, mmap.PAGESIZE):
            memory[page] = 1
        with_it = peak_memory_mb()
    after = peak_memory_mb()
    forget_peak()
    again = peak_memory_mb()
    assert before is not None
    assert with_it is not None
    assert again is not None
    assert 150 < with_it - before < 250
    assert after == with_it
    assert again < with_it - 150
