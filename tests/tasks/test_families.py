"""Families of functions: each part has functions of its own, whatever the seeds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from quickstudy.tasks.families import FAMILIES, FunctionParts


@pytest.mark.parametrize("name", FAMILIES)
def test_no_two_parts_and_no_two_seeds_share_functions(name: str) -> None:
    seen = [
        part.tasks(shot=3, query=2, seed=seed).batch(np.arange(5)).support.y
        for part in FunctionParts.of(name)
        for seed in range(4)
    ]
    for a, b in itertools.combinations(seen, 2):
        assert not torch.equal(a, b)


def test_fingerprints_tell_parts_apart() -> None:
    prints = {part.fingerprint() for name in FAMILIES for part in FunctionParts.of(name)}
    assert len(prints) == 3 * len(FAMILIES)
