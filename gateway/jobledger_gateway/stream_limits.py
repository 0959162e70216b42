"""How many event streams are open or being opened; and when they have to end."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from grpc import StatusCode
from starlette.requests import Request

from jobledger.errors import Unavailable
from jobledger.v1.job_pb2 import JOB_VIEW_FULL, JobView
from jobledger_gateway.budget import Budget, Holding, address_of
from jobledger_gateway.limits import ADDRESS_FULL_STREAMS, FULL_STREAMS, OPENING_STREAMS
from jobledger_gateway.problems import HttpProblem
from jobledger_gateway.settings import Settings


class StreamLimits:
    """Counts event streams, and ends them all when the gateway stops.

    A stream counts for its address from its request on, and for its client, which is an address
    with the same credentials, from the service's first answer on: before, anybody could say that
    the credentials are others.
    """

    def __init__(self, settings: Settings) -> None:
        in_all = settings.max_streams
        self._of_address = Budget(
            "event streams", in_all, settings.max_address_streams, retry_after=5
        )
        self._of_client = Budget(
            "event streams", in_all, settings.max_client_streams, of="client", retry_after=5
        )
        self._full = Budget(
            "event streams in the view FULL", FULL_STREAMS, ADDRESS_FULL_STREAMS, retry_after=5
        )
        self._opening = Opening(settings.timeout)
        self._open: set[asyncio.Future[None]] = set()
        self._draining = False

    def drain(self) -> None:
        """End all streams, and refuse further ones."""
        self._draining = True
        for stopped in self._open:
            if not stopped.done():
                stopped.set_result(None)

    @contextmanager
    def stream(self, request: Request) -> Iterator["Place"]:
        """Count a stream until the block ends.

        Raises:
            HttpProblem: there are too many, or the gateway stops.
        """
        if self._draining:
            raise HttpProblem(503, "the gateway is stopping", {"Retry-After": "1"})
        address = address_of(request.scope)
        token = request.headers.get("authorization") or request.query_params.get("token")
        client = str(hash((address, token)))
        stopped = asyncio.get_running_loop().create_future()
        with (
            self._of_address.holding(address, 1),
            self._of_client.holding(client) as of_client,
            self._full.holding(address) as full,
        ):
            self._open.add(stopped)
            try:
                yield Place(stopped, of_client, full, self._opening, address)
            finally:
                self._open.discard(stopped)


class Place:
    """The place of one event stream.

    Args:
        stopped: is done when the gateway stops.
        of_client: what this stream holds of its client's streams.
        full: what it holds of those in the view FULL.
        opening: the streams that are being opened.
        address: where this one's request comes from.
    """

    __slots__ = ("_full", "_of_client", "_opening", "address", "stopped")

    def __init__(
        self,
        stopped: "asyncio.Future[None]",
        of_client: Holding,
        full: Holding,
        opening: "Opening",
        address: str,
    ) -> None:
        self.stopped = stopped
        self._of_client = of_client
        self._full = full
        self._opening = opening
        self.address = address

    @asynccontextmanager
    async def opening(self, view: JobView.ValueType) -> AsyncIterator[None]:
        """Wait until the service may be asked; the block ends with its first answer.

        Raises:
            HttpProblem: the client has too many streams, or too many in this view.
            Unavailable: the service does not answer earlier ones of the address.
        """
        if view == JOB_VIEW_FULL:
            self._full.take(1)
        async with self._opening.turn(self.address):
            yield
        self._of_client.take(1)


class Opening:
    """Streams that the service is asked for at once. Those of an address wait for each other.

    Args:
        seconds: how long one waits at most.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._turns: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(OPENING_STREAMS)
        )
        self._asking: Counter[str] = Counter()

    @asynccontextmanager
    async def turn(self, address: str) -> AsyncIterator[None]:
        """Wait until less than OPENING_STREAMS of an address are being opened."""
        self._asking[address] += 1
        turns = self._turns[address]
        try:
            await self._granted(turns)
            try:
                yield
            finally:
                turns.release()
        finally:
            self._asking[address] -= 1
            if not self._asking[address]:
                del self._asking[address], self._turns[address]

    async def _granted(self, turns: asyncio.Semaphore) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await turns.acquire()
        except TimeoutError:
            raise Unavailable(
                f"{OPENING_STREAMS} event streams of this address wait for the service",
                code=StatusCode.UNAVAILABLE,
            ) from None
