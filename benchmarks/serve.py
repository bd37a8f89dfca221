"""The server under load: adapting and predicting, predictions a second, memory; beside a bare FastAPI echo.

    python benchmarks/serve.py [--out results/serve.json]

Servers are processes of their own, on loopback; clients keep their connections open and send PNGs of Glyphs.
Latencies are of one client, the server on one core; loads of 16 clients, all cores shared by both sides, so
that what is compared is a ratio: the echo reads the same JSON by the same framework and answers it.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image
from record import options, record

import quickstudy as qs

WAY, SHOT, QUERIES = 5, 5, 5
CLIENTS, SECONDS, REQUESTS, TASKS = 16, 20.0, 20_000, 40
LEARNERS: dict[str, dict[str, Any]] = {
    "protonet": {"channels": 64},
    "maml": {"channels": 20, "steps": 5},
}
TARGETS = {"protonet": 0.05, "maml": 0.1}
ECHO = """
import uvicorn
from fastapi import FastAPI
app = FastAPI()
@app.post("/echo")
async def echo(given: dict) -> dict:
    return given
uvicorn.run(app, host="127.0.0.1", port={port}, log_level="warning", access_log=False)
"""


def png(x: np.ndarray) -> str:
    """A picture as a client sends it."""
    file = io.BytesIO()
    Image.fromarray(x).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def made(name: str, place: Path) -> Path:
    """A run folder of this learner, hardly trained: what it costs does not depend on that."""
    how = dict(LEARNERS[name])
    config = qs.TrainConfig(
        data="glyphs",
        learner=name,
        channels=how.pop("channels"),
        iterations=1,
        meta_batch=1,
        validation_tasks=2,
        threads=1,
        strategy="loop",
        settings=how,
    )
    qs.train(config, place / name)
    return place / name


@contextmanager
def process(command: list[str], url: str, cores: set[int]) -> Iterator[subprocess.Popen[bytes]]:
    """A server, from when it answers until the block ends."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(len(cores))}
    server = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        os.sched_setaffinity(server.pid, cores)
        until = time.monotonic() + 120
        while True:
            try:
                httpx.get(url, timeout=5)
                break
            except httpx.TransportError:
                if server.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"the server did not start: {command}") from None
                time.sleep(0.1)
        yield server
    finally:
        server.terminate()
        server.wait()


def resident(server: subprocess.Popen[bytes]) -> float:
    """Memory of a process in MB."""
    pages = int(Path(f"/proc/{server.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def latency(url: str, run: str) -> dict[str, float]:
    """The median seconds of making a classifier of 25 examples, of asking it for 5 pictures, and of both."""
    drawings = qs.data.glyphs(classes=40 + WAY, samples_per_class=SHOT + 1)
    classes = range(40, 40 + WAY)
    examples = [
        {"label": str(c), "image": png(drawings.examples(c)[i, 0].numpy())}
        for c in classes
        for i in range(SHOT)
    ]
    queries = {"images": [png(drawings.examples(c)[SHOT, 0].numpy()) for c in classes]}
    adapting, predicting = [], []
    with httpx.Client(base_url=url) as client:
        for _ in range(TASKS):
            begun = time.perf_counter()
            answer = client.post("/classifiers", json={"run": run, "examples": examples}).raise_for_status()
            between = time.perf_counter()
            client.post(f"/classifiers/{answer.json()['id']}/predict", json=queries).raise_for_status()
            adapting.append(between - begun)
            predicting.append(time.perf_counter() - between)
    both = [a + b for a, b in zip(adapting, predicting, strict=True)]
    return {
        "adapt": statistics.median(adapting),
        "predict": statistics.median(predicting),
        "both": statistics.median(both),
    }


async def load(
    port: int, path: str, body: bytes, *, seconds: float = 0.0, requests: int = 0
) -> dict[str, Any]:
    """Requests a second, and their times, of many clients that ask as soon as they are answered."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    message = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    times: list[float] = []
    begun = time.perf_counter()

    def goes_on() -> bool:
        return len(times) < requests if requests else time.perf_counter() - begun < seconds

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while goes_on():
            asked = time.perf_counter()
            writer.write(message)
            answered = await reader.readuntil(b"\r\n\r\n")
            assert answered.startswith(b"HTTP/1.1 200"), answered
            [length] = [
                int(line.split(b":")[1])
                for line in answered.lower().split(b"\r\n")
                if line.startswith(b"content-length")
            ]
            await reader.readexactly(length)
            times.append(time.perf_counter() - asked)
        writer.close()

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    spent = time.perf_counter() - begun
    return {
        "per_second": len(times) / spent,
        "median": statistics.median(times),
        "p99": float(np.quantile(times, 0.99)),
    }


def main() -> None:
    given = options(__doc__, "serve").parse_args()
    cores = os.sched_getaffinity(0)
    rows: list[dict[str, Any]] = []
    body = json.dumps({"images": [png(qs.data.glyphs(classes=41).examples(40)[0, 0].numpy())]}).encode()
    with tempfile.TemporaryDirectory() as folder:
        runs = [str(made(name, Path(folder))) for name in LEARNERS]
        port = 8391
        serve = [sys.executable, "-m", "quickstudy", "serve", *runs, "--port", str(port)]
        api = f"http://127.0.0.1:{port}/api/v1"
        with process(serve, f"{api}/health", {min(cores)}):
            for name in LEARNERS:
                found = latency(api, name)
                rows.append({"what": "latency", "learner": name, "target": TARGETS[name], **found})
                print(json.dumps(rows[-1]), file=sys.stderr)
        with process(
            [sys.executable, "-c", ECHO.format(port=port + 1)], f"http://127.0.0.1:{port + 1}/", cores
        ):
            echo = asyncio.run(load(port + 1, "/echo", body, seconds=SECONDS))
            rows.append({"what": "echo", **echo})
            print(json.dumps(rows[-1]), file=sys.stderr)
        with process(serve, f"{api}/health", cores) as server:
            drawings = qs.data.glyphs(classes=45, samples_per_class=SHOT)
            for name in LEARNERS:
                examples = [
                    {"label": str(c), "image": png(x[0].numpy())}
                    for c in range(40, 45)
                    for x in drawings.examples(c)
                ]
                answer = httpx.post(
                    f"{api}/classifiers", json={"run": name, "examples": examples}, timeout=60
                )
                path = f"/api/v1/classifiers/{answer.raise_for_status().json()['id']}/predict"
                found = asyncio.run(load(port, path, body, seconds=SECONDS))
                ratio = found["per_second"] / echo["per_second"]
                rows.append({"what": "load", "learner": name, "target": 100, **found, "of_echo": ratio})
                print(json.dumps(rows[-1]), file=sys.stderr)
            before = resident(server)
            asyncio.run(load(port, path, body, requests=REQUESTS))
            after = resident(server)
            memory = {
                "requests": REQUESTS,
                "before_mb": before,
                "after_mb": after,
                "grown_mb": after - before,
            }
            rows.append({"what": "memory", **memory})
            print(json.dumps(rows[-1]), file=sys.stderr)
    record(given.out, results=rows)


if __name__ == "__main__":
    main()
