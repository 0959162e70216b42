"""A call on one connection: two sides, which reach each other through the connection alone."""

import asyncio
from collections import deque
from collections.abc import Callable

import grpc

from jobledger_world.network.pipe import Pipe
from jobledger_world.network.status import Status

PREFIX_BYTES = 5
"""What gRPC sends before each message."""

MAX_TRAILER_BYTES = 16 * 1024
"""What a client takes of a status, gRPC's default. Of half of it, it takes some."""


class Signal:
    """Wakes all tasks that wait for it."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """Return at the next `send`."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future

    def send(self) -> None:
        """Wake the tasks that wait now."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)


class Side:
    """What one side of a stream has received, and what it may send.

    Args:
        pipe: Goes to the other side.
        window: Bytes that this side sends before the other one reads them. Then it waits.
        max_bytes: The largest message that this side takes.
        changed: Sent when anything of this changes.

    Attributes:
        peer: The other side. Nothing of it is touched but through the pipe.
        incoming: Messages that were received and not read.
        half_closed: The other side sends no further messages.
    """

    peer: "Side"

    def __init__(self, pipe: Pipe, window: int, max_bytes: int, changed: Signal) -> None:
        self.pipe = pipe
        self.incoming: deque[bytes] = deque()
        self.half_closed = False
        self.changed = changed
        self.window = window
        self._max_bytes = max_bytes
        self._unread = 0
        self._read = 0
        self._held: deque[tuple[int, Callable[..., object], object]] = deque()

    @property
    def full(self) -> bool:
        """Whether the other side has to read before it gets what was sent last."""
        return bool(self._held)

    def send(self, data: bytes) -> None:
        """Send a message. The caller waits afterwards while this side is `full`."""
        self.follow(self.peer.arrive, data, len(data) + PREFIX_BYTES)

    def half_close(self) -> None:
        """Say that no message follows."""
        self.follow(self.peer.arrive, None)

    def follow(self, arrive: Callable[..., object], what: object, size: int = 0) -> None:
        """Have something arrive at the other side after all that was sent before it."""
        self._held.append((size, arrive, what))
        self._send_held()

    def _send_held(self) -> None:
        """Send what there is room for.

        The other side may have read half of the window without saying so. What needs more than the
        other half goes in parts, of which the first ones make it say so.
        """
        while self._held:
            size, arrive, what = self._held[0]
            if size and self._unread > self.window // 2 and self._unread + size > self.window:
                return
            self._held.popleft()
            self._unread += size
            self.pipe.send(arrive, what)

    def arrive(self, data: bytes | None) -> None:
        """Take a message from the other side, or None if none follows."""
        if data is None:
            self.half_closed = True
        elif len(data) > self._max_bytes:
            sizes = f"({len(data)} vs. {self._max_bytes})"
            self.refuse(f"Received message larger than max {sizes}")
        else:
            self.incoming.append(data)
        self.changed.send()

    def refuse(self, why: str) -> None:
        """End the stream because of a message that is too large."""
        raise NotImplementedError

    def read(self) -> bytes:
        """Take the first message that was received."""
        data = self.incoming.popleft()
        self._read += len(data) + PREFIX_BYTES
        # As HTTP/2's implementations do: not after each message.
        if self._read > self.peer.window // 2:
            self.pipe.send(self.peer.widen, self._read)
            self._read = 0
        return data

    def widen(self, size: int) -> None:
        """Take note that the other side has read so many bytes."""
        self._unread -= size
        self._send_held()
        self.changed.send()


class ClientStream(Side):
    """The client's side. `on_end` is called once, with the status."""

    peer: "ServerStream"

    def __init__(
        self,
        pipe: Pipe,
        window: int,
        max_bytes: int,
        changed: Signal,
        on_end: Callable[[Status], object],
    ) -> None:
        super().__init__(pipe, window, max_bytes, changed)
        self._on_end: Callable[[Status], object] | None = on_end

    def end(self, status: Status) -> None:
        """Take the status that the server has sent after its messages."""
        if (size := _size(status)) > MAX_TRAILER_BYTES:
            why = f"received metadata size exceeds hard limit ({size} vs. {MAX_TRAILER_BYTES})"
            status = Status(grpc.StatusCode.RESOURCE_EXHAUSTED, why)
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(status)

    def lose(self, status: Status) -> None:
        """Take note that the connection is gone, and what was not read of a stream that goes on."""
        if self._on_end is not None:
            self.incoming.clear()
            self.end(status)

    def cancel(self) -> None:
        """Leave, and tell the server that nobody waits for the call any more."""
        self._on_end = None
        self._held.clear()
        self.pipe.send(self.peer.cancel)

    def refuse(self, why: str) -> None:
        self.pipe.send(self.peer.cancel)
        self.lose(Status(grpc.StatusCode.RESOURCE_EXHAUSTED, f"CLIENT: {why}"))


class ServerStream(Side):
    """The server's side. `on_cancel` is called when nobody waits for the call any more."""

    peer: ClientStream

    def __init__(self, pipe: Pipe, window: int, max_bytes: int, client: ClientStream) -> None:
        super().__init__(pipe, window, max_bytes, Signal())
        self.peer = client
        client.peer = self
        self.cancelled = False
        self.on_cancel: Callable[[], object] = lambda: None

    def cancel(self) -> None:
        """Take note that the client has ended the call, or is gone."""
        if not self.cancelled:
            self.cancelled = True
            self.incoming.clear()
            self._held.clear()
            self.changed.send()
            self.on_cancel()

    def end(self, status: Status) -> None:
        """Send the status, after all messages."""
        self.follow(self.peer.end, status)

    def refuse(self, why: str) -> None:
        self._held.clear()
        self.end(Status(grpc.StatusCode.RESOURCE_EXHAUSTED, f"SERVER: {why}"))
        self.cancel()


def _size(status: Status) -> int:
    """Return the bytes of a status, as HTTP/2 counts those of headers."""
    return len(status.details) + sum(len(key) + len(value) + 32 for key, value in status.trailing)
