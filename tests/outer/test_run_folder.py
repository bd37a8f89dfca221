"""The run folder: nothing damaged or foreign is taken for a run, and the message names the file."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from quickstudy.errors import RunError, UserError
from quickstudy.outer.config import TrainConfig
from quickstudy.outer.load_run import load_run
from quickstudy.outer.run_folder import RunFolder
from quickstudy.outer.session import train
from quickstudy.outer.tensor_file import VERSION

Quick = Callable[..., TrainConfig]
TENSORS = {
    "w": torch.arange(6.0).reshape(2, 3),
    "step": torch.tensor(3.0),
    "n": torch.tensor([1, 2]),
    "none": torch.zeros(0, 4),
}
META = {"iteration": 20, "best": 0.5, "names": ["a", None]}


def complaint(use: Callable[[], object]) -> str | None:
    """What the error of the user's says that `use` raises; None where it works."""
    try:
        use()
    except UserError as error:
        return str(error)
    return None


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "deep" / "run", {"way": 5})
    assert run.config == {"version": VERSION, "way": 5}
    run.save("a.safetensors", TENSORS, META)
    tensors, meta = RunFolder.open(run.path).load("a.safetensors")
    assert meta == META
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


def test_weights_are_plain_safetensors_and_no_pickle(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    run = RunFolder.create(tmp_path, {})
    run.save("a.safetensors", TENSORS, META)
    assert load_file(run.path / "a.safetensors").keys() == TENSORS.keys()


def test_every_flipped_bit_of_a_header_is_noticed(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, {})
    run.save("a.safetensors", TENSORS, META)
    path = tmp_path / "a.safetensors"
    raw = path.read_bytes()
    bits = list(range(8 * len(raw)))
    for bit in random.Random(0).sample(bits, 600):
        damaged = bytearray(raw)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        if (said := complaint(lambda: run.load("a.safetensors"))) is not None:
            assert said.startswith(f"{path} is damaged")
            continue
        tensors, meta = run.load("a.safetensors")
        # Only what says nothing may have been hit: the name of the checksum, padding.
        assert {k: v for k, v in meta.items() if k in META} == META
        assert all(torch.equal(tensors[k], v) for k, v in TENSORS.items())


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, {})
    run.save("a.safetensors", TENSORS, META)
    path = tmp_path / "a.safetensors"
    raw = path.read_bytes()
    for length in range(len(raw)):
        path.write_bytes(raw[:length])
        with pytest.raises(RunError, match=r"a\.safetensors is damaged"):
            run.load("a.safetensors")


def test_files_without_a_checksum_of_the_header_are_read(tmp_path: Path) -> None:
    from quickstudy.outer.tensor_file import checksum

    run = RunFolder.create(tmp_path, {})
    header = {"version": 1, "sum": checksum(TENSORS), **META}
    (tmp_path / "a.safetensors").write_bytes(save(TENSORS, {"quickstudy": json.dumps(header)}))
    assert run.load("a.safetensors")[1] == META


def test_a_foreign_safetensors_file_is_refused(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, {})
    (tmp_path / "a.safetensors").write_bytes(save(TENSORS))
    with pytest.raises(RunError, match=r"a\.safetensors is damaged"):
        run.load("a.safetensors")


def test_another_version_is_told(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, {})
    (tmp_path / "config.json").write_text('{"version": 2}')
    with pytest.raises(RunError, match=r"layout version 2; this quickstudy \S+ reads version 1"):
        RunFolder.open(tmp_path)


@pytest.mark.parametrize("content", [b"", b'{"version"', b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_config_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(RunError, match=r"config\.json is damaged"):
        RunFolder.open(tmp_path)


def test_what_is_no_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="none is not a run folder: there is no such folder"):
        RunFolder.open(tmp_path / "none")
    with pytest.raises(RunError, match=r"is not a run folder: it has no config\.json"):
        RunFolder.open(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="file is not a run folder"):
        RunFolder.open(tmp_path / "file")


def test_an_existing_folder_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("all of it")
    for path in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(RunError, match="exists already: choose another --out"):
            RunFolder.create(path, {})
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_place_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="file/run"):
        RunFolder.create(tmp_path / "file" / "run", {})
    with pytest.raises(RunError, match="File name too long"):
        RunFolder.create(tmp_path / ("x" * 300), {})


def test_records(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert list(run.records()) == []
    run.log({"iteration": 1, "loss": 0.1})
    run.log({"iteration": 2, "loss": float("nan"), "other": float("inf")})
    expected: list[dict[str, Any]] = [
        {"iteration": 1, "loss": 0.1},
        {"iteration": 2, "loss": None, "other": None},
    ]
    assert list(run.records()) == expected
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(b'{"iteration": 3, "lo')
    assert list(run.records()) == expected
    run.rewind(1)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"iteration": 1, "loss": 0.1}\n'


@pytest.mark.parametrize("line", [b"{", b"\xff", b"[]", b'{"loss": 1}', b"", b'{"iteration": "x"}'])
def test_a_damaged_line_of_records_is_named(line: bytes, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"iteration": 1}\n' + line + b'\n{"iteration": 3}\n')
    with pytest.raises(RunError, match=r"metrics\.jsonl is damaged in line 2"):
        list(RunFolder(tmp_path).records())


@given(cut=st.integers(0, 10_000))
def test_records_cut_anywhere_are_the_first_ones(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    records = [{"iteration": i, "loss": i / 7} for i in range(20)]
    for record in records:
        folder.log(record)
    path = folder.path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:cut])
    found = list(folder.records())
    assert found == records[: len(found)]


def test_damage_anywhere_in_a_run_ends_in_one_clear_error(quick: Quick, tmp_path: Path) -> None:
    """Whatever bit is flipped: going on, or loading, works as before or raises an error of the user's."""
    config = quick()
    train(config, tmp_path)
    lot = random.Random(0)
    for name in (
        "config.json",
        "summary.json",
        "metrics.jsonl",
        "best.safetensors",
        "checkpoint.safetensors",
    ):
        path = tmp_path / name
        raw = path.read_bytes()
        for _ in range(25):
            bit = lot.randrange(8 * len(raw))
            damaged = bytearray(raw)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            for use in (lambda: load_run(tmp_path), lambda: train(config, tmp_path, resume=True)):
                said = complaint(use)
                assert said is None or str(tmp_path) in said, said
                path.write_bytes(damaged)
        path.write_bytes(raw[: len(raw) // 2])
        if name in ("config.json", "best.safetensors"):
            with pytest.raises(RunError, match=f"{name} is damaged"):
                load_run(tmp_path)
        if name in ("config.json", "summary.json"):
            with pytest.raises(RunError, match=f"{name} is damaged"):
                train(config, tmp_path, resume=True)
        path.write_bytes(raw)
    load_run(tmp_path)


def test_tied_weights_are_kept_under_both_names(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "a", {})
    whole = torch.arange(6.0)
    run.save("w.safetensors", {"a": whole, "b": whole, "c": whole[2:4]}, {})
    tensors, _ = run.load("w.safetensors")
    assert torch.equal(tensors["a"], whole)
    assert torch.equal(tensors["b"], whole)
    assert torch.equal(tensors["c"], whole[2:4])


def test_a_users_own_temporary_file_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "thesis.tmp").write_text("two years")
    with pytest.raises(RunError, match="exists already"):
        RunFolder.create(tmp_path, {})
    assert (tmp_path / "thesis.tmp").read_text() == "two years"
    run = RunFolder.create(tmp_path / "a", {})
    for name in ("thesis.tmp", "checkpoint.safetensors.4711.tmp"):
        (run.path / name).write_text("half")
    run.rewind(0)
    assert (run.path / "thesis.tmp").exists()
    assert not (run.path / "checkpoint.safetensors.4711.tmp").exists()


def test_a_digest_changes_with_any_byte(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "a", {"way": 5})
    (run.path / "x").write_bytes(b"abc")
    first = run.digest("x")
    (run.path / "x").write_bytes(b"abd")
    assert (len(first), run.digest("x") == first) == (16, False)
    with pytest.raises(RunError, match="has no y"):
        run.digest("y")
