"""gRPC calls over HTTP/2 made by hand: a client library takes more.

A grpc.aio client uses nearly as much processor time as the server that it calls, and
where there are few cores takes it from that server. This is what it takes to call a grpc
server on the same machine, and no more: no deadlines, no compression, no retries. RFC 9113 has the
frames, RFC 7541 the headers.
"""

import asyncio
import struct
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, cast

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

_FRAME = struct.Struct(">IBI")
"""A frame's length and kind in one number, its flags, its stream."""

_SETTING = struct.Struct(">HI")

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_ACK = _END_STREAM = 0x1
_END_HEADERS = 0x4
_INITIAL_WINDOW_SIZE = 4

_MAX_FRAME = 16_384
_WINDOW = 65_535
"""Bytes that either side may send at first."""

_LARGEST_WINDOW = 2**31 - 1
_GRANT = 2**30
"""Bytes after which the server may send as many again."""

STREAMS_PER_CONNECTION = 90
"""A server lets a connection have about 100 calls at once."""

_STATIC_HEADERS = 61
"""Entries of HPACK's static table; a connection's own come after them, the newest first."""


class CallFailed(Exception):
    """A call had no answer; the message has what there was instead."""


class Call(ABC):
    """A call under way. Subclasses take what comes back."""

    __slots__ = ("_part", "id", "window")

    def __init__(self) -> None:
        self.id = 0
        self.window = 0
        """Bytes that may be sent on it."""
        self._part = b""

    @abstractmethod
    def message(self, body: bytes) -> None:
        """Take a message."""

    @abstractmethod
    def ended(self, why: Exception | None, trailers: bytes) -> None:
        """Take note of the end: by the server's trailers, as they are, or `why` instead."""

    def received(self, data: bytes) -> None:
        """Take what arrived of messages, whole or in parts."""
        if self._part:
            data = self._part + data
        at, size = 0, len(data)
        while at + 5 <= size:
            end = at + 5 + int.from_bytes(data[at + 1 : at + 5], "big")
            if end > size:
                break
            self.message(data[at + 5 : end])
            at = end
        self._part = data[at:]


class _Unary(Call):
    """A call of one message each way. Only one that succeeded has an answer."""

    __slots__ = ("_body", "answer")

    def __init__(self) -> None:
        super().__init__()
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._body: bytes | None = None

    def message(self, body: bytes) -> None:
        self._body = body

    def ended(self, why: Exception | None, trailers: bytes) -> None:
        if self.answer.done():
            return
        if self._body is None or why:
            self.answer.set_exception(why or CallFailed(f"no answer: {trailers!r}"))
        else:
            self.answer.set_result(self._body)


class Connection(asyncio.Protocol):
    """A connection. For generated stubs it is a channel, of unary calls only.

    An error in what is received, or in who takes it, ends the connection and its calls.
    """

    _transport: asyncio.Transport

    def __init__(self, target: str) -> None:
        self._target = target
        self._calls: dict[int, Call] = {}
        self._headers: dict[tuple[str, str], int] = {}
        self._next_id = 1
        self._turn = asyncio.Semaphore(STREAMS_PER_CONNECTION)
        self._window = self._call_window = _WINDOW
        self._unsent: deque[tuple[Call, bytes, bool]] = deque()
        self._received = 0
        self._rest = b""
        self._out: list[bytes] = []
        self._loop = asyncio.get_running_loop()

    def begin(self, call: Call, path: str) -> None:
        """Begin a call of a method, `/package.Service/Method`; `send` sends its messages.

        Raises CallFailed if the connection was closed.
        """
        if self.closed:
            raise CallFailed("the connection was closed")
        call.id, call.window = self._next_id, self._call_window
        self._next_id += 2
        self._calls[call.id] = call
        headers = (
            b"\x83\x86"  # :method POST, :scheme http
            + self._header(":path", path)
            + self._header(":authority", self._target)
            + self._header("content-type", "application/grpc")
            + self._header("user-agent", "jobledger-benchmark")
            + self._header("te", "trailers")
            + self._header("grpc-accept-encoding", "identity")
        )
        self._write(_HEADERS, _END_HEADERS, call.id, headers)

    def send(self, call: Call, body: bytes, *, last: bool = False) -> None:
        """Send a message, as soon as the server lets it be sent. After the last: no more."""
        self._unsent.append((call, b"\0" + len(body).to_bytes(4, "big") + body, last))
        self._send_unsent()

    def finish(self, call: Call) -> None:
        """Say that a call has no more messages."""
        self._unsent.append((call, b"", True))
        self._send_unsent()

    def unary_unary(
        self,
        path: str,
        request_serializer: Callable[[Any], bytes],
        response_deserializer: Callable[[bytes], Any],
        _registered_method: bool = False,  # noqa: FBT001, FBT002
    ) -> Callable[[Any], Awaitable[Any]]:
        """Return what makes calls of a method. Each raises CallFailed where there is no answer."""

        async def make(request: Any) -> Any:
            async with self._turn:
                call = _Unary()
                self.begin(call, path)
                self.send(call, request_serializer(request), last=True)
                return response_deserializer(await call.answer)

        return make

    def unary_stream(self, *_: object, **__: object) -> None:
        """Have a stub be made; its streams are made with `begin`."""

    stream_unary = stream_stream = unary_stream

    @property
    def closed(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one but in name
        self._transport.write(_PREFACE)
        self._write(_SETTINGS, 0, 0, _SETTING.pack(_INITIAL_WINDOW_SIZE, _LARGEST_WINDOW))
        self._grant(_LARGEST_WINDOW - _WINDOW)

    def connection_lost(self, exc: Exception | None) -> None:
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.ended(exc or CallFailed("the connection was closed"), b"")

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        at, size = 0, len(data)
        while at + 9 <= size:
            head, flags, number = _FRAME.unpack_from(data, at)
            end = at + 9 + (head >> 8)
            if end > size:
                break
            self._take(head & 0xFF, flags, number, data[at + 9 : end])
            at = end
        self._rest = data[at:]

    def _take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == _DATA:
            self._received += len(payload)
            if self._received >= _GRANT:
                self._grant(self._received)
                self._received = 0
            self._calls[number].received(payload)
        elif kind == _HEADERS:
            if flags & _END_STREAM:
                self._calls.pop(number).ended(None, payload)
        elif kind == _WINDOW_UPDATE:
            self._widen(number, int.from_bytes(payload, "big"))
        elif kind == _PING:
            if not flags & _ACK:
                self._write(_PING, _ACK, 0, payload)
        elif kind == _SETTINGS:
            if not flags & _ACK:
                self._apply(payload)
                self._write(_SETTINGS, _ACK, 0, b"")
        elif kind == _RST_STREAM:
            # After the trailers it only says that no more need be sent.
            if call := self._calls.pop(number, None):
                call.ended(CallFailed(f"reset with {int.from_bytes(payload, 'big')}"), b"")
        else:
            raise CallFailed(f"a frame of kind {kind}: {payload!r}")

    def _apply(self, settings: bytes) -> None:
        for name, value in _SETTING.iter_unpack(settings):
            if name == _INITIAL_WINDOW_SIZE:
                for call in self._calls.values():
                    call.window += value - self._call_window
                self._call_window = value
        self._send_unsent()

    def _widen(self, number: int, size: int) -> None:
        if not number:
            self._window += size
        elif call := self._calls.get(number):
            call.window += size
        self._send_unsent()

    def _grant(self, size: int) -> None:
        """Let the server send `size` more bytes."""
        self._write(_WINDOW_UPDATE, 0, 0, size.to_bytes(4, "big"))

    def _send_unsent(self) -> None:
        """Send what may be sent, oldest first."""
        while self._unsent:
            call, data, last = self._unsent[0]
            if self._calls.get(call.id) is not call:  # it ended before all was sent
                self._unsent.popleft()
                continue
            size = min(len(data), self._window, call.window, _MAX_FRAME)
            if data and size <= 0:
                return
            rest = data[size:]
            self._window -= size
            call.window -= size
            self._write(_DATA, 0 if rest or not last else _END_STREAM, call.id, data[:size])
            if rest:
                self._unsent[0] = (call, rest, last)
            else:
                self._unsent.popleft()

    def _header(self, name: str, value: str) -> bytes:
        """Write a header: the first time as text that the server keeps, then as its index."""
        number = self._headers.get((name, value))
        if number is not None:
            return bytes([0x80 | _STATIC_HEADERS + len(self._headers) - number])
        self._headers[name, value] = len(self._headers)
        texts = (name.encode(), value.encode())  # each shorter than 127 bytes
        return b"\x40" + b"".join(bytes([len(text)]) + text for text in texts)

    def _write(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """Write a frame: all that come together at once."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(_FRAME.pack(len(payload) << 8 | kind, flags, number))
        self._out.append(payload)

    def _flush(self) -> None:
        self._transport.write(b"".join(self._out))
        self._out.clear()


async def connect(target: str) -> Connection:
    """Connect to a server at HOST:PORT."""
    host, _, port = target.rpartition(":")
    _, connection = await asyncio.get_running_loop().create_connection(
        lambda: Connection(target), host, int(port)
    )
    return connection
