from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from quickstudy.data import cache
from quickstudy.data.dataset import ClassDataset


def sample(seed: int = 0) -> ClassDataset:
    x = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (6, 1, 4, 4), dtype=np.uint8))
    return ClassDataset(
        x=x,
        offsets=torch.tensor([0, 2, 3, 6]),
        names=("α/1", "b", "c"),
        attributes={"drawer": torch.tensor([0, 1, 0, 0, 1, 2])},
        class_attributes={"alphabet": ("Greek", "Latin", "Latin")},
        splits={"one": ((0,), (1,), (2,))},
        name="sample",
        note="made up",
    )


def never() -> ClassDataset:
    raise AssertionError("made again although it was kept")


def assert_same(a: ClassDataset, b: ClassDataset) -> None:
    assert torch.equal(a.x, b.x)
    assert a.x.dtype == b.x.dtype
    assert torch.equal(a.offsets, b.offsets)
    assert torch.equal(a.attributes["drawer"], b.attributes["drawer"])
    for name in ("names", "class_attributes", "splits", "name", "note"):
        assert getattr(a, name) == getattr(b, name), name
    assert a.fingerprint() == b.fingerprint()


def test_what_was_kept_comes_back_whole(tmp_path: Path) -> None:
    assert_same(cache.build("k", tmp_path, sample), sample())
    assert_same(cache.build("k", tmp_path, never), sample())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["k.json", "k.npy"]


def test_writing_to_the_tensor_never_reaches_the_file(tmp_path: Path) -> None:
    cache.build("k", tmp_path, sample).x.zero_()
    assert_same(cache.build("k", tmp_path, never), sample())


@pytest.mark.parametrize("file", ["k.npy", "k.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "half", "one bit", "text"])
def test_a_damaged_cache_is_made_anew(tmp_path: Path, file: str, damage: str) -> None:
    cache.build("k", tmp_path, sample)
    path = tmp_path / file
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    else:
        # In the header's case the bit is in a class name, else in the last pixel.
        place = content.index(b'"b"') + 1 if file == "k.json" else len(content) - 1
        flipped = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        kinds = {"empty": b"", "half": content[: len(content) // 2], "one bit": flipped, "text": b"hello"}
        path.write_bytes(kinds[damage])
    made = []

    def make() -> ClassDataset:
        made.append(1)
        return sample()

    assert_same(cache.build("k", tmp_path, make), sample())
    assert made == [1]
    assert_same(cache.build("k", tmp_path, never), sample())


def test_a_pickle_in_the_cache_is_never_loaded(tmp_path: Path) -> None:
    cache.build("k", tmp_path, sample)

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    np.save(tmp_path / "k.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    assert_same(cache.build("k", tmp_path, sample), sample())
    assert not (tmp_path / "sprung").exists()


def test_a_place_that_cannot_be_written_costs_only_the_cache(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    assert_same(cache.build("k", blocked, sample), sample())


def test_a_full_disk_costs_only_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert_same(cache.build("k", tmp_path, sample), sample())
    assert list(tmp_path.iterdir()) == []


def test_many_may_build_at_once(tmp_path: Path) -> None:
    results: list[ClassDataset] = []
    threads = [
        threading.Thread(target=lambda: results.append(cache.build("k", tmp_path, sample))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    for result in results:
        assert_same(result, sample())
    json.loads((tmp_path / "k.json").read_bytes())


def test_keys_tell_content_apart() -> None:
    keys = {cache.key(*p) for p in [("a", "b"), ("ab",), ("a", b"b"), ("a", 1), ("a", "1"), (["a"], "b"), ()]}
    assert len(keys) == 7
    assert cache.key("a", 1) == cache.key("a", 1)


def test_places_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("QUICKSTUDY_DATA", str(tmp_path / "data"))
    assert cache.cache_root() == tmp_path / "cache"
    assert cache.data_roots(tmp_path / "mine") == [
        tmp_path / "mine",
        tmp_path / "data",
        tmp_path / "cache/data",
    ]
    assert cache.data_root() == tmp_path / "data"
    monkeypatch.setenv("QUICKSTUDY_DATA", "")
    assert cache.data_root() == tmp_path / "cache/data"
    monkeypatch.delenv("QUICKSTUDY_CACHE")
    assert cache.cache_root().name == "quickstudy"


def test_downloads_go_where_they_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("QUICKSTUDY_DATA", str(tmp_path / "shared"))
    (tmp_path / "shared").mkdir()
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "shared" not in str(path) and real(path, mode))
    assert cache.data_root() == tmp_path / "cache/data"


def test_find_goes_by_place_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICKSTUDY_DATA", str(tmp_path / "two"))
    for place in ("one/b", "two/a"):
        (tmp_path / place).parent.mkdir()
        (tmp_path / place).touch()
    assert cache.find(["a", "b"], tmp_path / "one") == tmp_path / "one/b"
    assert cache.find(["a", "b"]) == tmp_path / "two/a"
    assert cache.find(["c"], tmp_path / "one") is None
