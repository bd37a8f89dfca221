from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from torch import nn

from quickstudy.inner.settings import settings


class Users(nn.Module):
    """What a user's layer may compute by."""

    gain = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.chosen, self.scales = {1, 2}, np.ones(3)
        self.nested = {"sizes": [1, (2, 3)]}


CHANGES: dict[str, Callable[[Any], object]] = {
    "a set": lambda net: net.chosen.add(3),
    "an array": lambda net: net.scales.__setitem__(1, 2.0),
    "a nested list": lambda net: net.nested["sizes"].append(4),
    "an attribute": lambda net: setattr(net, "gain", 2.0),
    "the class": lambda net: setattr(type(net), "gain", 3.0),
    "the mode": lambda net: net.eval(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_is_told(change: str) -> None:
    net = type("Own", (Users,), {})()
    before = settings(net)
    assert settings(net) == before
    assert hash(settings(net)) == hash(before)
    CHANGES[change](net)
    assert settings(net) != before
