"""A server in a thread, and pictures as a client sends them."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

import quickstudy as qs
from quickstudy.app.server.running import Running

API = "/api/v1"


def sent(x: np.ndarray | Image.Image, kind: str = "PNG") -> str:
    """A picture in base64."""
    file = io.BytesIO()
    (x if isinstance(x, Image.Image) else Image.fromarray(x)).save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


DRAWINGS = qs.data.glyphs(classes=45, samples_per_class=8)
UNSEEN = range(40, 45)


def drawing(c: int, i: int) -> np.ndarray:
    """A drawing of a class that nothing was trained on, `[28, 28]`."""
    pixels: np.ndarray = DRAWINGS.examples(c)[i, 0].numpy()
    return pixels


def examples(shots: int = 3) -> list[dict[str, str]]:
    """Of five classes."""
    return [{"label": f"sign {c}", "image": sent(drawing(c, i))} for c in UNSEEN for i in range(shots)]


@contextmanager
def serving(runs: Sequence[Path], host: str = "127.0.0.1", **how: Any) -> Iterator[httpx.Client]:
    """A client of a server that listens on loopback, until the block ends; its paths begin behind /api/v1."""
    running = Running(runs, host, 0, device="cpu", **how)
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        until = time.monotonic() + 30
        while not running.server.started:
            assert time.monotonic() < until
            time.sleep(0.01)
        with httpx.Client(base_url=f"{running.url}{API}", timeout=60) as client:
            yield client
    finally:
        running.server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
