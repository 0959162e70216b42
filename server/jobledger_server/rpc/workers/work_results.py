"""The results of a stream's updates, in the order of the updates."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator

from jobledger.v1 import worker_service_pb2 as pb
from jobledger_server.admission.admission import Admission
from jobledger_server.admission.caller import Caller

MAX_WAITING = 1000
"""Updates of one stream without a result that was sent; at this number no more are read."""

MAX_WAITING_BYTES = 64 * 1024
"""Bytes of results that were not sent; at this number no more updates are read."""


class Pending:
    """The result of one update: pending until `message` is set, and then only that is kept."""

    __slots__ = ("message",)

    def __init__(self) -> None:
        self.message: bytes | None = None


class Results:
    """The results that were not sent yet.

    Args:
        ready: Called when there is one to send.
        held: Counts their bytes.
        caller: Whose they are.
    """

    def __init__(self, ready: Callable[[], None], held: Admission, caller: Caller) -> None:
        self._ready = ready
        self._held = held
        self._caller = caller
        self._pending: deque[Pending] = deque()
        self._bytes = 0
        self._closed = False
        self._has_room = asyncio.Event()

    def __len__(self) -> int:
        return len(self._pending)

    def expect(self) -> Pending:
        """Expect the result of the next update."""
        pending = Pending()
        self._pending.append(pending)
        return pending

    def settle(self, pending: Pending, result: pb.UpdateResult) -> None:
        """Take an expected result."""
        if self._closed:
            return
        pending.message = result.SerializeToString()
        self._bytes += len(pending.message)
        self._held.acquire(self._caller, len(pending.message), refuse=False)
        if pending is self._pending[0]:
            self._ready()

    def take(self) -> Iterator[bytes]:
        """Yield the serialized results that can be sent, and forget each."""
        while self._pending and (message := self._pending[0].message) is not None:
            self._pending.popleft()
            self._release(len(message))
            self._has_room.set()
            yield message

    async def room(self) -> None:
        """Return when few enough results wait for another update."""
        while len(self._pending) >= MAX_WAITING or self._bytes >= MAX_WAITING_BYTES:
            self._has_room.clear()
            await self._has_room.wait()

    def close(self) -> None:
        """Forget the results, and those that are still to come."""
        self._closed = True
        self._release(self._bytes)

    def _release(self, size: int) -> None:
        self._bytes -= size
        self._held.release(self._caller, size)
