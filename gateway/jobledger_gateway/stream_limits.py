"""How many event streams are open, in all and for each client; and when they have to end."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import Request

from jobledger_gateway.problems import HttpProblem


class StreamLimits:
    """Counts open event streams, and ends them all when the gateway stops.

    Args:
        in_all: streams at most.
        of_client: those of one client at most: one address with the same credentials.
    """

    def __init__(self, in_all: int, of_client: int) -> None:
        self._in_all = in_all
        self._of_client = of_client
        self._of: Counter[int] = Counter()
        self._open: set[asyncio.Future[None]] = set()
        self._draining = False

    def drain(self) -> None:
        """End all streams, and refuse further ones."""
        self._draining = True
        for stopped in self._open:
            if not stopped.done():
                stopped.set_result(None)

    @contextmanager
    def stream(self, request: Request) -> Iterator["asyncio.Future[None]"]:
        """Count a stream until the block ends. The future is done when the gateway stops.

        Raises:
            HttpProblem: there are too many, or the gateway stops.
        """
        address = request.client.host if request.client else ""
        token = request.headers.get("authorization") or request.query_params.get("token")
        client = hash((address, token))
        if self._draining:
            raise HttpProblem(503, "the gateway is stopping", {"Retry-After": "1"})
        if len(self._open) >= self._in_all:
            raise HttpProblem(503, "too many event streams are open", {"Retry-After": "5"})
        if self._of[client] >= self._of_client:
            raise HttpProblem(429, "this client has too many event streams", {"Retry-After": "5"})
        stopped = asyncio.get_running_loop().create_future()
        self._of[client] += 1
        self._open.add(stopped)
        try:
            yield stopped
        finally:
            self._open.discard(stopped)
            self._of[client] -= 1
            if not self._of[client]:
                del self._of[client]
