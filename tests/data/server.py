"""A web server on the loopback that fails on demand: the tests' stand-in for a publisher."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


@dataclass
class Server:
    """What is served, how, and what was asked for.

    Args:
        files: contents by path, with spaces as they are; may be changed while serving.
        ranges: whether Range headers are answered with 206, or ignored.
        tag: the ETag; also changed to say that a file is another now.
        faults: what the next requests get instead of an answer, one each: a status, or the number of
            bytes after which the connection is cut. None lets one request pass.
        shift: how many bytes too early a part begins.
        stall: the number of bytes after which each answer hangs, until this is set to None.
        requests: (path, its Range header, the status sent) of each request so far.
    """

    files: dict[str, bytes]
    ranges: bool = True
    tag: str | None = '"one"'
    faults: list[int | None] = field(default_factory=list)
    stall: int | None = None
    shift: int = 0
    requests: list[tuple[str, str | None, int]] = field(default_factory=list)
    sent: int = 0
    url: str = ""

    def asked(self) -> list[str | None]:
        """The Range headers, in order."""
        return [wanted for _, wanted, _ in self.requests]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """One request: find, cut, fail."""
        path, wanted = unquote(handler.path), handler.headers["Range"]
        fault = self.faults.pop(0) if self.faults else None
        content = self.files.get(path)
        status = 404 if content is None else 200
        cut = None
        if fault is not None and 400 <= fault < 600:
            status = fault
        elif fault is not None:
            cut = fault
        headers = {"ETag": self.tag} if self.tag else {}
        body = content if status == 200 and content is not None else b""
        condition = handler.headers["If-Range"]
        if status == 200 and wanted and self.ranges and condition in (None, self.tag):
            match = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
            assert match, wanted
            first = int(match[1]) - self.shift
            if first >= len(body):
                status, headers["Content-Range"], body = 416, f"bytes */{len(body)}", b""
            else:
                last = min(int(match[2] or len(body)), len(body) - 1)
                status, headers["Content-Range"] = 206, f"bytes {first}-{last}/{len(body)}"
                body = body[first : last + 1]
        self.requests.append((path, wanted, status))
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        try:
            if self.stall is not None:
                handler.wfile.write(body[: self.stall])
                while self.stall is not None:
                    time.sleep(0.01)
                handler.close_connection = True
                return
            handler.wfile.write(body[:cut])
            self.sent += len(body[:cut])
        except OSError:  # the client had enough
            pass
        handler.close_connection = True


@contextmanager
def serving(files: dict[str, bytes], **options: object) -> Iterator[Server]:
    """A `Server` that answers while the block runs, its `url` ending in a slash."""
    server = Server(files, **options)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            server.answer(self)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_port}/"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
