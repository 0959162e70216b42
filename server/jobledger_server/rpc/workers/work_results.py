"""The results of a stream's updates, in the order of the updates."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator

from jobledger.v1 import worker_service_pb2 as pb
from jobledger_server.admission.admission import Admission
from jobledger_server.admission.caller import Caller
from jobledger_server.tuning import Tuning


class Pending:
    """The result of one update: pending until `message` is set, and then only that is kept."""

    __slots__ = ("message", "weight")

    def __init__(self, weight: int) -> None:
        self.message: bytes | None = None
        self.weight = weight


class Results:
    """The results that were not sent yet.

    Args:
        ready: Called when there is one to send.
        held: Counts their bytes.
        caller: Whose they are.
        tuning: How many there may be.
    """

    def __init__(
        self,
        ready: Callable[[], None],
        held: Admission,
        caller: Caller,
        tuning: Tuning = Tuning(),
    ) -> None:
        self._ready = ready
        self._held = held
        self._caller = caller
        self._most = tuning.unsent_results
        self._most_bytes = tuning.unsent_result_bytes
        self._pending: deque[Pending] = deque()
        self._weight = 0
        self._bytes = 0
        self._closed = False
        self._has_room = asyncio.Event()

    def __len__(self) -> int:
        return len(self._pending)

    def expect(self, weight: int = 1) -> Pending:
        """Expect the result of the next update, of one more for each of its assets."""
        pending = Pending(weight)
        self._pending.append(pending)
        self._weight += weight
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
            self._weight -= self._pending.popleft().weight
            self._release(len(message))
            self._has_room.set()
            yield message

    async def room(self) -> None:
        """Return when few enough results wait for another update."""
        while self._weight >= self._most or self._bytes >= self._most_bytes:
            self._has_room.clear()
            await self._has_room.wait()

    def close(self) -> None:
        """Forget the results, and those that are still to come."""
        self._closed = True
        self._release(self._bytes)

    def _release(self, size: int) -> None:
        self._bytes -= size
        self._held.release(self._caller, size)
