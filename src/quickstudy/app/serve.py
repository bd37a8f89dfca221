"""`quickstudy serve`: the studio, and classifiers by a JSON API, on this machine."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.markup import escape

from quickstudy.app.options import parse
from quickstudy.errors import UserError

EXAMPLES = """Serve one run or several: the studio, a page to draw classes and a test on, and a JSON API.

Only programs on this machine can ask, unless --host says otherwise; then whoever asks needs a token.

Examples:
  quickstudy serve runs/demo                              then open http://127.0.0.1:8000 in a browser
  quickstudy serve runs/a runs/b --port 9000
  quickstudy serve runs/a --host 0.0.0.0 --token SECRET   for others; without --token one is made up

The API's schema is at /api/v1/openapi.json. It needs two more packages: pip install 'quickstudy[serve]'"""


@dataclass(frozen=True)
class Serve:
    """What to serve, and to whom.

    Args:
        runs: the run folders; the first is the usual one.
        host: the address to listen on.
        port: 0 for any that is free.
        token: that clients must have.
        device: cpu, cuda, cuda:1 …; by default a CUDA GPU where there is one.
        data_dir: where data lies, for random tasks of it; by default $QUICKSTUDY_DATA, then the cache folder.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    device: str | None = None
    data_dir: Path | None = None


def main(args: Sequence[str]) -> int:
    """Parse, load, serve until interrupted."""
    given = parse(Serve, args, "serve", EXAMPLES)
    try:
        from quickstudy.app.server.running import Running
    except ImportError as error:
        if error.name not in ("fastapi", "uvicorn"):
            raise
        raise UserError("serve needs fastapi and uvicorn: pip install 'quickstudy[serve]'") from None
    if not 0 <= given.port < 65536:
        raise UserError(f"port must be 0 to 65535, not {given.port}")
    if given.token is not None and len(given.token) < 8:
        raise UserError("a token must have at least 8 letters")
    say = Console(stderr=True, highlight=False, soft_wrap=True).print
    local = is_loopback(given.host)
    token = given.token or (None if local else secrets.token_urlsafe(16))
    running = Running(
        given.runs, given.host, given.port, token=token, device=given.device, data_dir=given.data_dir
    )
    names = ", ".join(model.name for model in running.models)
    shown = running.url if token is None else f"{running.url}/#token={token}"
    say(escape(f"serving {names}: open {shown} in a browser"))
    if not local:
        say("other machines can reach this server; what is said between is not encrypted")
    say("Ctrl-C ends it")
    running.run()
    return 0


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
