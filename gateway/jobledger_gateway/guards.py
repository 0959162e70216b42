"""What is checked of each request before any route, and the headers of each answer.

A browser calls with its user's authority on behalf of whichever page it shows. So a request that
changes something has to come from the gateway's own page or a listed origin, and a gateway on
loopback has to be addressed by a name of its own (a page elsewhere can have its name resolved to
127.0.0.1: DNS rebinding).
"""

from collections.abc import Collection
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobledger_gateway.problems import HttpProblem, problem_response

SECURITY_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}

PROBES: Final = frozenset({"/healthz", "/readyz"})
"""Paths that a platform asks for, by whichever name and however busy the gateway is."""

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Guards:
    """Refuses what no page of ours sends, and adds the security headers.

    Args:
        app: what answers.
        origins: the origins of other pages that may change something.
        hosts: the names that this gateway has; empty for any.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str], hosts: Collection[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            if scope["path"] not in PROBES:
                self._check(scope["method"], Headers(scope=scope))
        except HttpProblem as problem:
            await problem_response(problem)(scope, receive, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)

    def _check(self, method: str, headers: Headers) -> None:
        host = headers.get("host", "").lower()
        if self._hosts and not {host, _without_port(host)} & self._hosts:
            raise HttpProblem(
                421, f"this gateway is not known as {host!r}: its option --host adds a name"
            )
        origin = headers.get("origin")
        if method in _SAFE or origin is None or origin in self._origins:
            return
        if origin.partition("://")[2].lower() != host or not host:
            raise HttpProblem(403, f"pages of {origin} may not do this: see --cors-origin")


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() else host
