from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quickstudy.outer.wire import from_bytes, to_bytes

PLAIN = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False)
VALUES = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
    ),
)


@given(VALUES)
def test_what_is_told_is_what_is_heard(value: Any) -> None:
    heard = from_bytes(to_bytes(value))
    assert heard == value
    assert repr(heard) == repr(value)  # a tuple stays a tuple, 1 stays 1 and 1.0 stays 1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bool, torch.bfloat16])
@pytest.mark.parametrize("shape", [(), (0, 3), (4, 5)])
def test_tensors_bit_for_bit(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    sent = torch.randn(shape).to(dtype)
    heard = from_bytes(to_bytes([sent, {"turned": sent.T if sent.ndim == 2 else sent}, sent]))
    assert heard[0].dtype == dtype
    assert torch.equal(heard[0], sent)
    assert torch.equal(heard[1]["turned"], sent.T if sent.ndim == 2 else sent)
    assert torch.equal(heard[2], sent)


def test_numbers_that_are_none() -> None:
    heard = from_bytes(to_bytes([math.nan, math.inf, torch.tensor(math.nan)]))
    assert math.isnan(heard[0])
    assert heard[1] == math.inf
    assert heard[2].isnan()


def test_what_has_no_words_is_refused() -> None:
    with pytest.raises(TypeError, match="a set cannot be told"):
        to_bytes({"a": {1, 2}})
