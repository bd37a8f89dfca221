"""The command: it says where to look, whom it lets in, what is wrong, and ends by Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from quickstudy.app.serve import is_loopback
from quickstudy.app.server.running import reachable

from .drawn import serving


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no run is named: quickstudy serve runs/a"),
        (("runs/none",), "runs/none is not a run folder"),
        (("RUN", "--port", "65536"), "port must be 0 to 65535, not 65536"),
        (("RUN", "--token", "short"), "a token must have at least 8 letters"),
        (("RUN", "--host", "203.0.113.1"), "cannot listen on 203.0.113.1, port 8000"),
    ],
)
def test_what_is_wrong_is_named(
    words: tuple[str, ...], said: str, run: Path, refused: Callable[..., str]
) -> None:
    assert said in refused("serve", *(run if word == "RUN" else word for word in words))


@pytest.mark.skipif(os.name == "nt", reason="Windows sends SIGINT to no single process")
def test_it_serves_until_it_is_interrupted(run: Path) -> None:
    command = [sys.executable, "-m", "quickstudy", "serve", str(run), "--port", "0", "--token", "open sesame"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            first = server.stderr.readline()
            found = re.search(r"serving glyphs: open (http://127\.0\.0\.1:\d+)/#token=open sesame in", first)
            assert found, first
            assert server.stderr.readline() == "Ctrl-C ends it\n"
            with httpx.Client(base_url=found[1], timeout=60) as client:
                page = client.get("/")
                assert page.status_code == 200
                assert "quickstudy studio" in page.text
                assert client.get("/api/v1/runs").status_code == 401
                answer = client.get("/api/v1/runs", headers={"authorization": "Bearer open sesame"})
                assert answer.status_code == 200
        finally:
            server.send_signal(signal.SIGINT)
        rest = server.communicate(timeout=60)[1]
    assert server.returncode in (0, 130), rest
    assert "Traceback" not in rest


def test_the_address_that_is_told_can_be_opened() -> None:
    """Where it listens on all addresses of the machine, one of them is told, not 0.0.0.0."""
    assert [reachable(host) for host in ("127.0.0.1", "::1", "example.org")] == [
        "127.0.0.1",
        "::1",
        "example.org",
    ]
    for every in ("0.0.0.0", ""):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
            own.bind((reachable(every), 0))  # which only addresses of this machine can be
            assert own.getsockname()[0] != "0.0.0.0"


@pytest.mark.parametrize("host", ["127.0.0.2", "[::1]"])
def test_every_address_of_this_machine_s_own_answers(run: Path, host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as free:
            free.bind((host.strip("[]"), 0))
    except OSError:
        pytest.skip(f"this machine has no {host}")
    with serving([run], host) as client:
        assert str(client.base_url).startswith(f"http://{host}:")
        assert client.get("/health").status_code == 200
        assert client.get("/health", headers={"host": "evil.example"}).status_code == 421


def test_names_that_only_this_machine_answers_to() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.1", "example.org", "")))
