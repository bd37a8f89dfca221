from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickstudy.data import download, transfer
from quickstudy.data.download import fetch, fetch_rows
from quickstudy.data.npy import npy_header
from quickstudy.errors import DataError

from .server import Server, serving

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()
ROWS = np.random.default_rng(1).integers(0, 256, (50, 784), np.uint8)


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "BACKOFF", 0.001)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving({"/a.bin": CONTENT, "/an ant.npy": npy(ROWS)}) as it:
        yield it


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "a.bin"


def alone(dest: Path) -> bool:
    """Nothing else was left beside it."""
    return [path.name for path in dest.parent.iterdir()] == [dest.name]


def test_a_file_comes_whole_and_is_asked_for_once(server: Server, dest: Path) -> None:
    for _ in range(2):
        assert fetch([server.url + "a.bin"], dest, sha256=SHA256, md5=MD5.upper(), size=300_000) == dest
        assert dest.read_bytes() == CONTENT
    assert len(server.requests) == 1
    assert alone(dest)


def test_a_cut_connection_is_taken_up_where_it_broke(server: Server, dest: Path) -> None:
    server.faults = [100_000, 50_000]
    fetch([server.url + "a.bin"], dest, sha256=SHA256)
    assert dest.read_bytes() == CONTENT
    assert server.asked() == [None, "bytes=100000-", "bytes=150000-"]
    assert server.sent == len(CONTENT)
    assert alone(dest)


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(server: Server, dest: Path) -> None:
    server.faults = [200_000]
    with pytest.raises(DataError, match=r"a\.bin could not be downloaded"):
        fetch([server.url + "a.bin"], dest, retries=0)
    assert not dest.exists()
    fetch([server.url + "a.bin"], dest)
    assert dest.read_bytes() == CONTENT
    assert server.asked() == [None, "bytes=200000-"]


def test_a_part_that_begins_elsewhere_is_not_joined(server: Server, dest: Path) -> None:
    """Nothing else would tell where there is no checksum."""
    server.faults = [200_000]
    server.shift = 100
    with pytest.raises(DataError, match="answered from byte 199900, not 200000"):
        fetch([server.url + "a.bin"], dest, retries=1)
    assert not dest.exists()
    fetch([server.url + "a.bin"], dest, retries=0)
    assert dest.read_bytes() == CONTENT


def test_a_download_stopped_just_before_its_end_is_not_repeated(server: Server, dest: Path) -> None:
    dest.parent.mkdir()
    dest.with_name("a.bin.part").write_bytes(CONTENT)
    dest.with_name("a.bin.part.tag").write_text('"one"')
    fetch([server.url + "a.bin"], dest, sha256=SHA256)
    assert server.sent == 0
    assert dest.read_bytes() == CONTENT
    assert alone(dest)


FETCH = "import sys; from pathlib import Path; from quickstudy.data.download import fetch; " + (
    "fetch(sys.argv[1:2], Path(sys.argv[2]))"
)


def wait(seconds: float, until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_killed_download_goes_on_where_it_stopped(server: Server, dest: Path) -> None:
    server.stall = 200_000
    child = subprocess.Popen(
        [sys.executable, "-c", FETCH, server.url + "a.bin", str(dest)], stderr=subprocess.DEVNULL
    )
    part = dest.with_name("a.bin.part")
    try:
        wait(60, lambda: child.poll() is None and bool(server.requests))
        # Long before the client gives up on the server, which would write what it still holds.
        wait(10, lambda: part.exists() and part.stat().st_size >= 100_000)
    finally:
        child.kill()
        child.wait()
    server.stall = None
    had = part.stat().st_size
    assert not dest.exists()
    fetch([server.url + "a.bin"], dest, sha256=SHA256)
    assert server.asked() == [None, f"bytes={had}-"]
    assert alone(dest)


def test_processes_and_threads_that_want_one_file_take_turns(server: Server, dest: Path) -> None:
    server.stall = 200_000
    child = subprocess.Popen(
        [sys.executable, "-c", FETCH, server.url + "a.bin", str(dest)], stderr=subprocess.PIPE
    )
    with ThreadPoolExecutor(2) as pool:
        wait(60, lambda: bool(server.requests))
        threads = [pool.submit(fetch, [server.url + "a.bin"], dest, sha256=SHA256) for _ in range(2)]
        time.sleep(0.3)
        server.stall = None  # the answer is cut: the child goes on with the rest
        said = child.communicate(timeout=60)[1]
        assert all(thread.result(timeout=60) == dest for thread in threads)
    assert child.returncode == 0, said
    assert server.asked()[0] is None
    assert len(server.asked()) == 2
    assert alone(dest)


@pytest.mark.parametrize("tag", ["", "\n", "a\r\nb", "\xff"])
def test_a_tag_that_no_header_can_carry_is_not_sent(server: Server, dest: Path, tag: str) -> None:
    dest.parent.mkdir()
    dest.with_name("a.bin.part").write_bytes(CONTENT[:1000])
    dest.with_name("a.bin.part.tag").write_bytes(tag.encode("latin1"))
    fetch([server.url + "a.bin"], dest)
    assert dest.read_bytes() == CONTENT
    assert server.asked() == [None]


@pytest.mark.parametrize("change", ["no ranges", "another version", "no tag"])
def test_it_starts_over_where_going_on_is_not_safe(server: Server, dest: Path, change: str) -> None:
    server.faults = [200_000]
    server.tag = None if change == "no tag" else server.tag
    with pytest.raises(DataError):
        fetch([server.url + "a.bin"], dest, retries=0)
    server.ranges = change != "no ranges"
    if change == "another version":
        server.files["/a.bin"] = CONTENT[::-1]
        server.tag = '"two"'
    fetch([server.url + "a.bin"], dest)
    assert dest.read_bytes() == server.files["/a.bin"]
    assert [status for *_, status in server.requests] == [200, 200]


def test_a_damaged_beginning_is_thrown_away_once_it_is_seen(server: Server, dest: Path) -> None:
    dest.parent.mkdir()
    dest.with_name("a.bin.part").write_bytes(b"x" * 1000)
    dest.with_name("a.bin.part.tag").write_text('"one"')
    fetch([server.url + "a.bin"], dest, sha256=SHA256)
    assert dest.read_bytes() == CONTENT
    assert server.asked() == ["bytes=1000-", None]


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(server: Server, dest: Path) -> None:
    server.faults = [500, 503]
    fetch([server.url + "b.bin", server.url + "a.bin"], dest, sha256=SHA256)
    assert [(path, status) for path, _, status in server.requests] == [
        ("/b.bin", 500),
        ("/b.bin", 503),
        ("/b.bin", 404),
        ("/a.bin", 200),
    ]


def test_a_mirror_with_other_bytes_gives_way_to_the_next(server: Server, dest: Path) -> None:
    server.files["/bad.bin"] = b"!" + CONTENT[1:]
    fetch([server.url + "bad.bin", server.url + "a.bin"], dest, md5=MD5)
    assert dest.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"sha256": "0" * 64}, SHA256),
        ({"md5": "0" * 32}, MD5),
        ({"size": 299_999}, "300000 bytes, not the 299999"),
    ],
)
def test_other_bytes_never_appear_and_both_are_named(
    server: Server, dest: Path, options: dict[str, object], found: str
) -> None:
    with pytest.raises(DataError) as error:
        fetch([server.url + "a.bin"], dest, **options)
    message = str(error.value)
    assert found in message
    assert str(next(iter(options.values()))) in message
    assert str(dest) in message
    assert "\n" not in message
    assert list(dest.parent.iterdir()) == []


def test_a_file_that_is_there_is_checked(server: Server, dest: Path) -> None:
    dest.parent.mkdir()
    dest.write_bytes(b"other")
    with pytest.raises(DataError, match=rf"{dest} is damaged.*remove it"):
        fetch([server.url + "a.bin"], dest, sha256=SHA256)
    assert dest.read_bytes() == b"other"


def test_without_a_network_one_line_says_what_to_put_where(dest: Path) -> None:
    with serving({}) as gone:
        url = gone.url + "a.bin"
    with pytest.raises(DataError) as error:
        fetch([url], dest, size=300_000)
    assert str(error.value).endswith(f"place {url} (0.3 MB) at {dest}")
    assert "\n" not in str(error.value)


def test_a_place_that_cannot_be_written_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/a\.bin cannot be written"):
        fetch([server.url + "a.bin"], tmp_path / "file" / "a.bin")


def test_progress_goes_to_standard_error(
    server: Server, dest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch([server.url + "a.bin"], dest)
    out, err = capsys.readouterr()
    assert (out, "a.bin" in err) == ("", True)


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("rows", [1, 20, 50])
def test_only_the_first_rows_come(server: Server, tmp_path: Path, rows: int, ranges: bool) -> None:
    server.ranges = ranges
    got = fetch_rows([server.url + "an%20ant.npy"], tmp_path / "ant.npy", rows)
    assert np.array_equal(np.load(got), ROWS[:rows])
    assert alone(got)
    assert len(server.requests) == 1
    assert not ranges or server.sent == 128 + rows * 784


def test_a_longer_header_costs_a_second_request(server: Server, tmp_path: Path) -> None:
    short = npy(ROWS)
    header = short[10:127].ljust(500) + b"\n"
    server.files["/long.npy"] = b"\x93NUMPY\2\0" + len(header).to_bytes(4, "little") + header + short[128:]
    got = fetch_rows([server.url + "long.npy"], tmp_path / "ant.npy", 3)
    assert np.array_equal(np.load(got), ROWS[:3])
    assert server.asked() == ["bytes=0-2479", "bytes=2480-2864"]


def test_rows_go_on_after_a_cut_and_grow(server: Server, tmp_path: Path) -> None:
    dest, urls = tmp_path / "ant.npy", [server.url + "an%20ant.npy"]
    server.faults = [5000]
    assert np.array_equal(np.load(fetch_rows(urls, dest, 10)), ROWS[:10])
    assert server.asked() == ["bytes=0-7967", "bytes=5000-7967"]
    assert np.array_equal(np.load(fetch_rows(urls, dest, 40)), ROWS[:40])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"<html>no such page</html>", "it is no .npy file"),
        (b"", "no such range"),
        (npy(ROWS)[:5000], "it ends after 5000 bytes"),
        (npy(ROWS)[:100], "it ends after 100 bytes"),
        (npy(ROWS).replace(b"descr", b"d\0scr"), "its header is damaged"),
        (npy(ROWS.astype(np.int16)), "it holds <i2"),
        (npy(ROWS[:, :700]), r"it holds \[50, 700\], not \[n, 784\]"),
        (npy(np.asfortranarray(ROWS)), "by columns"),
    ],
)
def test_what_holds_no_such_rows_is_refused(
    server: Server, tmp_path: Path, content: bytes, problem: str
) -> None:
    server.files["/bad.npy"] = content
    with pytest.raises(DataError, match=problem):
        fetch_rows([server.url + "bad.npy"], tmp_path / "bad.npy", 10)
    assert not (tmp_path / "bad.npy").exists()


@pytest.mark.parametrize("ranges", [True, False])
def test_of_too_few_rows_all_are_kept_but_never_in_place_of_a_file(
    server: Server, tmp_path: Path, ranges: bool
) -> None:
    server.ranges = ranges
    dest, urls = tmp_path / "few.npy", [server.url + "an%20ant.npy"]
    assert np.array_equal(np.load(fetch_rows(urls, dest, 60)), ROWS)
    assert alone(dest)
    np.save(dest, ROWS[::-1])
    with pytest.raises(DataError, match="it has 50 rows, fewer than the 60 asked for"):
        fetch_rows(urls, dest, 60)
    assert np.array_equal(np.load(dest), ROWS[::-1])


def test_threads_share_a_session(server: Server, tmp_path: Path) -> None:
    with download.session() as client:
        assert isinstance(client, httpx.Client)
        jobs = [
            threading.Thread(
                target=fetch_rows,
                args=([server.url + "an%20ant.npy"], tmp_path / f"{k}.npy", k),
                kwargs={"client": client},
            )
            for k in range(1, 9)
        ]
        for job in jobs:
            job.start()
        for job in jobs:
            job.join()
    for k in range(1, 9):
        assert np.array_equal(np.load(tmp_path / f"{k}.npy"), ROWS[:k])


@given(n=st.integers(0, 10**12), width=st.integers(0, 10**4), cut=st.integers(0, 127))
def test_a_header_reads_as_numpy_wrote_it(n: int, width: int, cut: int) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "|u1", "fortran_order": False, "shape": (n, width)}
    )
    header = buffer.getvalue()
    assert npy_header(header + b"rows") == (len(header), (n, width))
    need, shape = npy_header(header[:cut])
    assert shape is None
    assert cut < need <= len(header)


def test_a_header_of_python_2_is_read() -> None:
    header = npy(ROWS)[:128].replace(b"(50, 784), }  ", b"(50L, 784L), }")
    assert npy_header(header) == (128, (50, 784))


@given(where=st.integers(0, 127), byte=st.integers(0, 255), tail=st.binary(max_size=200))
def test_a_damaged_header_is_refused_or_harmless(where: int, byte: int, tail: bytes) -> None:
    content = bytearray(npy(ROWS)[:128] + tail)
    content[where] = byte
    try:
        offset, shape = npy_header(bytes(content))
    except ValueError:
        return
    assert shape is None or (0 <= offset <= len(content) and min(shape, default=0) >= 0)


@given(st.binary(max_size=300))
def test_noise_is_no_header(content: bytes) -> None:
    try:
        need, shape = npy_header(b"\x93NUMPY\1\0" + content)
    except ValueError:
        return
    assert shape is None
    assert need > 8 + len(content)
