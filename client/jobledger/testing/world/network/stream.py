"""A call on one connection: two sides, which reach each other through the connection alone."""

import asyncio
from collections import deque
from collections.abc import Callable

from jobledger.testing.world.network.pipe import Pipe
from jobledger.testing.world.network.status import Status

WINDOW = 64 * 1024
"""Bytes that one side sends without the other one having read them. Then it waits."""


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
        changed: Sent when anything of this changes.

    Attributes:
        peer: The other side. Nothing of it is touched but through the pipe.
        incoming: Messages that were received and not read.
        half_closed: The other side sends no further messages.
    """

    peer: "Side"

    def __init__(self, pipe: Pipe, changed: Signal) -> None:
        self.pipe = pipe
        self.incoming: deque[bytes] = deque()
        self.half_closed = False
        self.changed = changed
        self._unread = 0
        self._read = 0

    @property
    def full(self) -> bool:
        """Whether the other side has to read before this one may send more."""
        return self._unread > WINDOW

    def send(self, data: bytes) -> None:
        """Send a message. The caller waits afterwards while this side is `full`."""
        self._unread += len(data)
        self.pipe.send(self.peer.arrive, data)

    def half_close(self) -> None:
        """Say that no message follows."""
        self.pipe.send(self.peer.arrive, None)

    def arrive(self, data: bytes | None) -> None:
        """Take a message from the other side, or None if none follows."""
        if data is None:
            self.half_closed = True
        else:
            self.incoming.append(data)
        self.changed.send()

    def read(self) -> bytes:
        """Take the first message that was received."""
        data = self.incoming.popleft()
        self._read += len(data)
        # As HTTP/2's implementations do: not after each message.
        if self._read > WINDOW // 2:
            self.pipe.send(self.peer.widen, self._read)
            self._read = 0
        return data

    def widen(self, size: int) -> None:
        """Take note that the other side has read so many bytes."""
        self._unread -= size
        self.changed.send()


class ClientStream(Side):
    """The client's side.

    Args:
        pipe: Goes to the server.
        changed: Sent when anything of this changes.
        ended: Called with the status, when the server has sent it or the connection was lost.
    """

    peer: "ServerStream"

    def __init__(self, pipe: Pipe, changed: Signal, ended: Callable[[Status], None]) -> None:
        super().__init__(pipe, changed)
        self.end = ended

    def cancel(self) -> None:
        """Tell the server that nobody waits for the call any more."""
        self.pipe.send(self.peer.cancel)


class ServerStream(Side):
    """The server's side.

    Args:
        pipe: Goes to the client.
        client: The client's side.
    """

    peer: ClientStream

    def __init__(self, pipe: Pipe, client: ClientStream) -> None:
        super().__init__(pipe, Signal())
        self.peer = client
        client.peer = self
        self.cancelled = False
        self.on_cancel: Callable[[], object] = lambda: None

    def cancel(self) -> None:
        """Take note that the client has ended the call, or is gone."""
        if not self.cancelled:
            self.cancelled = True
            self.changed.send()
            self.on_cancel()

    def end(self, status: Status) -> None:
        """Send the status, after all messages."""
        self.pipe.send(self.peer.end, status)
