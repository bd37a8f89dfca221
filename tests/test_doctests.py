"""Every example in a docstring under src/quickstudy runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import numpy as np
import pytest
import torch
from torch import nn

import quickstudy
from quickstudy.data.dataset import ClassDataset

# What a docstring may use without importing it.
USUAL = {"np": np, "torch": torch, "nn": nn, "ClassDataset": ClassDataset}

MODULES = ["quickstudy"] + [
    m.name
    for m in pkgutil.walk_packages(quickstudy.__path__, "quickstudy.")
    if not m.name.endswith("__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(str(tmp_path))
    module = importlib.import_module(name)
    finder, runner = doctest.DocTestFinder(exclude_empty=True), doctest.DocTestRunner()
    said: list[str] = []
    for test in finder.find(module, globs={**USUAL, **vars(module)}):
        runner.run(test, out=said.append)
    assert runner.failures == 0, "".join(said)


def test_there_are_examples() -> None:
    """The finder does find them, so that the test above can fail."""
    finder = doctest.DocTestFinder()
    found = [finder.find(importlib.import_module(name)) for name in MODULES]
    assert sum(bool(t.examples) for tests in found for t in tests) > 20
