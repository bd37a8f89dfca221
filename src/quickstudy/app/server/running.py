"""The server, running: a socket, uvicorn, and the application behind it."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from quickstudy.app.server.api import make_app
from quickstudy.app.server.guard import LOOPBACK
from quickstudy.app.server.limits import LIMITS, Limits
from quickstudy.app.server.models import Models
from quickstudy.errors import UserError

CONNECTIONS = 200
"""Clients that are served at a time; more are told to come back."""


class Impatient(H11Protocol):
    """HTTP, but that a client who says nothing, or too slowly what it wants, is left."""

    patience = LIMITS.seconds

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.loop.call_later(self.patience, self.look, None)

    def look(self, before: Any) -> None:
        """End the connection where a request has not come since one looked last.

        Args:
            before: the request of which the beginning of the next was waited for then; None for the first.
        """
        if self.transport.is_closing():
            return
        waiting = self.conn.their_state is h11.IDLE and (
            self.cycle is None or bool(self.conn.trailing_data[0])
        )
        if waiting and self.cycle is before:
            self.transport.close()
        else:
            self.loop.call_later(self.patience, self.look, self.cycle if waiting else self)


def reachable(host: str) -> str:
    """The address by which others find this machine, where it listens on all of its own.

    >>> reachable("127.0.0.1")
    '127.0.0.1'
    """
    if host not in ("0.0.0.0", "::", ""):
        return host
    family, somewhere = (socket.AF_INET6, "2001:db8::1") if ":" in host else (socket.AF_INET, "192.0.2.1")
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect((somewhere, 9))  # nothing is sent: only the way there is looked up
            found: str = asking.getsockname()[0]
        except OSError:
            return socket.gethostname()
    return found


class Running:
    """A server that listens; `run` serves until it is interrupted.

    Args:
        runs: run folders.
        host: the address to listen on.
        port: 0 for any that is free.
        limits: of what a client may ask for.
        token: that clients must have; None for none.
        device: as of `load_run`.
        data_dir: where data lies, for tasks of it.

    Raises:
        UserError: the address cannot be listened on.
        RunError: one of the runs is none.
    """

    def __init__(
        self,
        runs: Sequence[str | Path],
        host: str = "127.0.0.1",
        port: int = 8000,
        *,
        limits: Limits = LIMITS,
        token: str | None = None,
        device: str | None = None,
        data_dir: Path | None = None,
    ) -> None:
        self.models = Models(runs, device, data_dir, limits.classes)
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # Of TCP by name, or asyncio leaves its delays on: 40 ms an answer.
        self.socket = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self.socket.bind((host, port))
        except OSError as error:
            self.socket.close()
            raise UserError(f"cannot listen on {host}, port {port}: {error.strerror or error}") from error
        self.port = self.socket.getsockname()[1]
        shown = reachable(host)
        self.url = f"http://{f'[{shown}]' if ':' in shown else shown}:{self.port}"
        app = make_app(self.models, limits, hosts=LOOPBACK | {host} if token is None else None, token=token)
        self.server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=type("Impatient", (Impatient,), {"patience": limits.seconds}),
                ws="none",
                lifespan="off",
                log_level="warning",
                access_log=False,
                server_header=False,
                date_header=False,
                limit_concurrency=CONNECTIONS,
                timeout_keep_alive=10,
                timeout_graceful_shutdown=5,
                h11_max_incomplete_event_size=32_768,
            )
        )

    def run(self) -> None:
        """Serve until interrupted."""
        self.server.run(sockets=[self.socket])
