"""How many event streams are open, in all and for each client; and when they have to end."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

from starlette.requests import Request

from jobledger_gateway.problems import HttpProblem


class StreamLimits:
    """Counts open event streams.

    Args:
        in_all: streams at most.
        of_client: those of one client at most: one address with the same credentials.
    """

    def __init__(self, in_all: int, of_client: int) -> None:
        self._in_all = in_all
        self._of_client = of_client
        self._open: Counter[int] = Counter()

    @cached_property
    def draining(self) -> "asyncio.Future[None]":
        """Is done when all streams have to end, because the gateway stops."""
        return asyncio.get_running_loop().create_future()

    def drain(self) -> None:
        """End all streams."""
        if not self.draining.done():
            self.draining.set_result(None)

    @contextmanager
    def stream(self, request: Request) -> Iterator[None]:
        """Count a stream until the block ends. Raises HttpProblem if there are too many."""
        client = hash(
            (
                request.client.host if request.client else "",
                request.headers.get("authorization") or request.query_params.get("token"),
            )
        )
        if self.draining.done():
            raise HttpProblem(503, "the gateway is stopping", {"Retry-After": "1"})
        if self._open.total() >= self._in_all:
            raise HttpProblem(503, "too many event streams are open", {"Retry-After": "5"})
        if self._open[client] >= self._of_client:
            raise HttpProblem(429, "this client has too many event streams", {"Retry-After": "5"})
        self._open[client] += 1
        try:
            yield
        finally:
            self._open[client] -= 1
            if not self._open[client]:
                del self._open[client]
