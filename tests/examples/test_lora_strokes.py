"""The example's encoding, by value, and its pieces together in small."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import quickstudy as qs

FILE = Path(__file__).parents[2] / "examples" / "lora_strokes.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lora_strokes", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_points_lie_at_equal_distances_along_the_pens_way(example: ModuleType) -> None:
    """Two sides of a square, and between them its diagonal in the air: 10, 10√2 and 10 long."""
    square = [np.array([[0.0, 0.0], [10.0, 0.0]]), np.array([[0.0, 10.0], [10.0, 10.0]])]
    x, y, dx, dy, air = example.encoded(square, 5).T
    assert (x[0], y[0], x[2], y[2], x[4], y[4]) == pytest.approx((-1, -1, 0, 0, 1, 1), abs=1e-6)
    quarter = (20 + 200**0.5) / 4
    assert (x[1], y[1]) == pytest.approx((quarter / 5 - 1, -1), abs=1e-6)
    assert dx[1:] == pytest.approx(np.diff(x), abs=1e-6)
    assert dy[1:] == pytest.approx(np.diff(y), abs=1e-6)
    assert air.tolist() == [0, 0, 1, 0, 0]
    dot = example.encoded([np.array([[7.0, 9.0]])], 4)
    assert np.isfinite(dot).all()
    assert not dot.any()


def test_the_base_stays_as_it_was(example: ModuleType) -> None:
    """Learning to tell slants apart, which a frozen random net hardly does, moves adapters and head alone."""
    rng = np.random.default_rng(0)
    ends = [np.array([np.cos(a), np.sin(a)]) for a in np.linspace(0, np.pi, 12, endpoint=False)]
    strokes = [[np.stack([-e, e]) * 50 + rng.normal(0, 8, (2, 2))] for e in ends for _ in range(8)]
    x = np.stack([example.encoded(s, example.POINTS) for s in strokes])
    data = qs.ClassDataset.from_arrays(x, np.repeat(np.arange(12), 8))
    base = example.Transformer(16).requires_grad_(False)
    before = {k: v.clone() for k, v in base.state_dict().items()}
    learner = qs.MAML(qs.nets.lora(base, 2), way=2, inner_params="lora|head", inner_lr=0.2, steps=2)
    adapters = [p for k, p in learner.named_parameters() if "lora_b" in k]
    qs.meta_train(learner, qs.tasks(data, way=2, shot=1, query=3), iterations=3, meta_batch=2)
    after = {
        k.replace("parametrizations.", "").replace(".original", ""): v
        for k, v in learner.net.body.state_dict().items()
    }
    assert all(torch.equal(v, after[k]) for k, v in before.items())
    assert all(p.abs().max() > 0 for p in adapters)
