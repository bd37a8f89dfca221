from __future__ import annotations

import pytest
import torch

from quickstudy.nets import native


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def library(request: pytest.FixtureRequest) -> native.Native:
    """The kernels, built once; where there is no C compiler the tests that need them are skipped."""
    if not native.build(dtype=request.param):
        pytest.skip("no C compiler: the native kernels cannot be built")
    found = native._loaded(request.param)
    assert found is not None
    return found


@pytest.fixture
def kernels() -> native.Native:
    """Those for float64."""
    if not native.build(dtype=torch.float64):
        pytest.skip("no C compiler: the native kernels cannot be built")
    found = native._loaded(torch.float64)
    assert found is not None
    return found
