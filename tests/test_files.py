"""Files are written whole or not at all, and a failure names the file."""

from __future__ import annotations

import errno
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from quickstudy.errors import RunError
from quickstudy.files import Writer, append, write_bytes, write_json, write_whole


def test_the_old_content_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_bytes(path, b"first")
    write_bytes(path, b"second, longer")
    assert path.read_bytes() == b"second, longer"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_short_writes_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[:3]))
    write_bytes(tmp_path / "a", b"ten bytes!")
    append(tmp_path / "a", b" and more")
    assert (tmp_path / "a").read_bytes() == b"ten bytes! and more"


@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_a_failure_keeps_the_old_content(
    call: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fail(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(RunError) as raised:
            write_bytes(path, b"new")
    assert str(raised.value) == f"cannot write {path}: {os.strerror(number)}"
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_an_interruption_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_bytes(tmp_path / "a", b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    for write in (write_bytes, append):
        with pytest.raises(RunError, match=f"cannot write {tmp_path}/none/a: No such file"):
            write(tmp_path / "none" / "a", b"")


def test_content_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    for name in ("write", "fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, real=real: (calls.append(name), real(*a))[1])
    write_bytes(tmp_path / "a", b"content")
    assert calls == ["write", "fsync", "replace", "fsync"]


def test_large_content_comes_in_parts_and_is_whole_or_not_there(tmp_path: Path) -> None:
    array = np.arange(3_000_000, dtype=np.float64)
    write_whole(tmp_path / "a.npy", lambda file: np.save(file, array))
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), array)

    def half(file: Writer) -> None:
        file.write(b"half")
        raise MemoryError

    with pytest.raises(MemoryError):
        write_whole(tmp_path / "a.npy", half)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), array)
    assert [p.name for p in tmp_path.iterdir()] == ["a.npy"]


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_who_may_read_is_left_to_the_umask(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        write_bytes(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~umask


def test_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    contents = [bytes([i]) * 10_000 for i in range(8)]
    barrier = threading.Barrier(8)

    def fill(file: Writer, content: bytes) -> None:
        file.write(content[:5000])
        barrier.wait(timeout=10)
        file.write(content[5000:])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda c: write_whole(tmp_path / "a", lambda file: fill(file, c)), contents))
    assert (tmp_path / "a").read_bytes() in contents
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_json(tmp_path: Path) -> None:
    value = {"a": [1, 0.1, None], "é": "ü"}
    write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_bytes()) == value
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert json.loads((tmp_path / "a.json").read_bytes()) == value
