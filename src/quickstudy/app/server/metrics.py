"""How often and how long the server was asked what, in Prometheus's text format."""

from __future__ import annotations

import time
from collections import Counter

from quickstudy.app.server.guard import App, Message, Receive, Scope, Send

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Those that are counted by their names; a client may make up others."""


class Metrics:
    """An application whose answers are counted by method, route and status.

    Routes are those the application has, never what a client wrote, so that there are only so many.

    Args:
        app: the application.
    """

    def __init__(self, app: App) -> None:
        self.app = app
        self.answered: Counter[tuple[str, str, int]] = Counter()
        self.seconds: dict[tuple[str, str], float] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun, status = time.perf_counter(), 500

        async def seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, seen)
        finally:
            if scope["type"] == "http":
                route = getattr(scope.get("route"), "path", None)
                method, path = (scope["method"], route) if route else ("ANY", "other")
                method = method if method in METHODS else "ANY"
                self.answered[method, path, status] += 1
                spent = time.perf_counter() - begun
                self.seconds[method, path] = self.seconds.get((method, path), 0.0) + spent

    def text(self, classifiers: int) -> str:
        """What was counted."""
        lines = ["# TYPE quickstudy_requests_total counter"]
        for (method, path, status), n in sorted(self.answered.items()):
            labels = f'method="{method}",path="{path}",status="{status}"'
            lines.append(f"quickstudy_requests_total{{{labels}}} {n}")
        lines.append("# TYPE quickstudy_request_seconds_total counter")
        for (method, path), total in sorted(self.seconds.items()):
            lines.append(f'quickstudy_request_seconds_total{{method="{method}",path="{path}"}} {total:.6f}')
        lines += ["# TYPE quickstudy_classifiers gauge", f"quickstudy_classifiers {classifiers}"]
        return "\n".join(lines) + "\n"
