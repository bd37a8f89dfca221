"""What stands before the API: who may ask, how much, how slowly. Plain ASGI, so that it sees every byte."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from quickstudy.app.server.limits import Limits

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
ONCE = frozenset({"host", "origin", "content-length", "content-type", "authorization"})
"""Headers that mean nothing when there are two of them."""
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
"""With every answer: a page of ours loads nothing from elsewhere, and no other page frames or reads it."""


class Refused(Exception):
    """A request that is answered by a status and a sentence."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status, self.error = status, error


class Guard:
    """An application, behind these checks:

    - the Host header names this server: a page of another site, whose name was made to lead here, is refused
      (DNS rebinding);
    - what changes something comes from no page of another origin, and as JSON, which other pages cannot send
      without being asked for leave first;
    - where there is a token, whoever asks the API has it;
    - a body is neither longer nor slower than the limits say.

    Args:
        app: the application.
        limits: of what a client may send.
        hosts: names that this server goes by; None for any, as behind a proxy, where there is a token.
        token: that clients of the API must have; None for none.
    """

    def __init__(
        self, app: App, limits: Limits, hosts: frozenset[str] | None = LOOPBACK, token: str | None = None
    ) -> None:
        self.app, self.limits, self.hosts, self.token = app, limits, hosts, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            elif scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        begun = False

        async def guarded(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                own = [(k.encode(), v.encode()) for k, v in HEADERS.items()]
                given = [(k, v) for k, v in message.get("headers", []) if k.decode("latin-1") not in HEADERS]
                message["headers"] = [*given, *own]
            await send(message)

        try:
            self.check(scope)
            body = await self.whole(scope, receive)
        except Refused as error:
            await answer(guarded, error.status, error.error)
            return
        except Gone:
            return

        parts = [body]

        async def once() -> Message:
            if parts:
                return {"type": "http.request", "body": parts.pop(), "more_body": False}
            return await receive()

        await self.app(scope, once, guarded)

    def check(self, scope: Scope) -> None:
        """Refuse what does not come from where it may."""
        headers: dict[str, str] = {}
        for key, value in scope["headers"]:
            name = key.decode("latin-1").lower()
            if name in headers and name in ONCE:
                raise Refused(400, f"the header {name} is there twice")
            headers[name] = value.decode("latin-1")
        host = headers.get("host", "")
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            name = None
        if self.hosts is not None and name not in self.hosts:
            raise Refused(421, "this server does not go by that name: open it as http://127.0.0.1")
        changing = scope["method"] not in SAFE
        origin = headers.get("origin")
        if changing and origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            raise Refused(403, "requests from pages of another origin are refused")
        if changing and headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise Refused(403, "requests from pages of another origin are refused")
        if self.token is not None and scope["path"].startswith("/api/"):
            given = headers.get("authorization", "").encode("latin-1")  # the bytes that came
            if not hmac.compare_digest(given, f"Bearer {self.token}".encode()):
                raise Refused(401, "a token is needed: the header Authorization: Bearer TOKEN")
        kind = headers.get("content-type", "").split(";")[0].strip().lower()
        if scope["method"] in ("POST", "PUT", "PATCH") and kind != "application/json":
            raise Refused(415, "what is sent must be JSON, with the header Content-Type: application/json")
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or len(length) > 18:
            raise Refused(400, "the header content-length is no number")
        if int(length) > self.limits.body:
            raise Refused(413, self.too_long)

    @property
    def too_long(self) -> str:
        """What is said of a body that is too long."""
        return f"the request is longer than {self.limits.body / 1e6:g} MB: send fewer or smaller pictures"

    async def whole(self, scope: Scope, receive: Receive) -> bytes:
        """The body of a request, when all of it is there."""
        parts, length = [], 0
        try:
            async with asyncio.timeout(self.limits.seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Gone
                    part = message.get("body", b"")
                    length += len(part)
                    if length > self.limits.body:
                        raise Refused(413, self.too_long)
                    parts.append(part)
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            raise Refused(408, f"the request took longer than {self.limits.seconds:g} s to arrive") from None


class Gone(Exception):
    """The client left before it had said all."""


async def answer(send: Send, status: int, error: str) -> None:
    """Answer by a sentence, and end the connection."""
    body = json.dumps({"error": error}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    headers += [(b"content-length", str(len(body)).encode())]
    headers += [(b"www-authenticate", b"Bearer")] if status == 401 else []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
