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


def test_a_warp_is_one_affine_map_of_the_whole_drawing(example: ModuleType) -> None:
    """Solved for from three points, it gives the fourth; it is no identity, and half of them mirror."""
    rng = np.random.default_rng(0)
    square = [np.array([[0.0, 0.0], [10.0, 0.0]]), np.array([[0.0, 10.0], [10.0, 10.0]])]
    signs = []
    for _ in range(200):
        (origin, right), (down, across) = example.warped(square, rng)
        assert across == pytest.approx(right + down - origin)
        by = np.stack([right - origin, down - origin], -1) / 10
        assert not np.allclose(by, np.eye(2), atol=1e-3)
        assert 0.4 < abs(np.linalg.det(by)) < 2.5
        signs.append(np.linalg.det(by) < 0)
    assert 70 < sum(signs) < 130


def test_warped_copies_are_split_as_the_drawings_are(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No class that is pretrained on is among the unseen, and each drawing stands before its copies."""
    names = [f"class {i}" for i in range(10)]
    for name in names:
        line = (
            f'{{"word": "{name}", "recognized": true, "countrycode": "NL", "drawing": [[[0, 9], [5, 7]]]}}\n'
        )
        (tmp_path / f"{name}.ndjson").write_text(2 * line)
    monkeypatch.setattr(example, "categories", lambda: names)
    monkeypatch.setattr(example, "find", lambda paths: tmp_path / Path(paths[0]).name)
    plain, more = example.drawings(2), example.drawings(2, warps=3)
    train, _, _ = more.split("random", seed=0)
    seen, val, test = plain.split("random", seed=0)
    assert train.names == seen.names
    assert not {*train.names} & {*val.names, *test.names}
    assert torch.equal(more.x[:][::4], plain.x[:])
    assert len(more.x) == 4 * len(plain.x)
    assert not torch.equal(more.x[:][1::4], plain.x[:])


def slants(example: ModuleType) -> qs.ClassDataset:
    """24 classes of lines, by their slant."""
    rng = np.random.default_rng(0)
    ends = [np.array([np.cos(a), np.sin(a)]) for a in np.linspace(0, np.pi, 24, endpoint=False)]
    strokes = [[np.stack([-e, e]) * 50 + rng.normal(0, 8, (2, 2))] for e in ends for _ in range(8)]
    x = np.stack([example.encoded(s, example.POINTS) for s in strokes])
    return qs.ClassDataset.from_arrays(x, np.repeat(np.arange(24), 8))


def test_adapters_alone_are_learned(example: ModuleType) -> None:
    """The base is pretrained, then stays as it was; without what was learned, adapters change no nearest
    class mean."""
    data = slants(example)
    tasks = qs.ClassTasks(data, way=3, shot=1, query=3)
    torch.manual_seed(0)
    first = example.Transformer().state_dict()
    torch.manual_seed(0)
    base = example.pretrained(data, tasks, 1)
    before = {k: v.clone() for k, v in base.state_dict().items()}
    assert not all(torch.equal(v, first[k]) for k, v in before.items())
    learner = example.adapters(base, data, 2, 3)
    assert all(torch.equal(v, base.state_dict()[k]) for k, v in before.items())
    inside = {
        k.replace("parametrizations.", "").replace(".original", ""): v
        for k, v in learner.body.state_dict().items()
    }
    assert all(torch.equal(v, inside[k]) for k, v in before.items())
    b = [p for k, p in learner.named_parameters() if "lora_b" in k]
    assert {k.split(".")[-1] for k, p in learner.named_parameters() if p.requires_grad} == {
        "lora_a",
        "lora_b",
    }
    assert all(p.abs().max() > 0 for p in b)
    with torch.no_grad():
        for p in b:
            p.zero_()
    assert qs.evaluate(learner, tasks, n_tasks=20).accuracy == pytest.approx(
        qs.evaluate(qs.Untrained(base), tasks, n_tasks=20).accuracy
    )
