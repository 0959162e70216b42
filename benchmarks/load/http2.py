"""gRPC calls over HTTP/2 made by hand, for load generators: a client library takes more.

A grpc.aio client uses nearly as much processor time as the bare server that it calls, and
where there are few cores takes it from that server. This is what it takes to call a grpc
server on the same machine, and no more: no TLS, no deadlines, no compression, no
retries. RFC 9113 has the frames, RFC 7541 the headers.
"""

import asyncio
import struct
from abc import ABC, abstractmethod
from collections import deque
from typing import cast

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

_SMALL_WINDOW = 4_096
"""Of a call whose answers are not read: a few messages, and the server must wait."""

_LARGEST_WINDOW = 2**31 - 1
_GRANT = 2**30
"""Bytes after which the server may send so many more."""


class CallFailed(Exception):
    """A call had no answer; the message has what there was instead."""


class CallRefused(CallFailed):
    """The server ended a call without an answer."""


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


class Connection(asyncio.Protocol):
    """A connection for calls of one method, named by its `path`: /package.Service/Method.

    An error in what is received, or in who takes it, ends the connection and its calls.
    """

    _transport: asyncio.Transport

    def __init__(self, target: str, path: str, *, reads: bool = True) -> None:
        self._first_headers, self._headers = _headers(target, path)
        self._reads = reads
        self._calls: dict[int, Call] = {}
        self._next_id = 1
        self._window = self._call_window = _WINDOW
        self._unsent: deque[tuple[Call, bytes, bool]] = deque()
        self._received = 0
        self._rest = b""
        self._out: list[bytes] = []
        self._loop = asyncio.get_running_loop()

    def begin(self, call: Call) -> None:
        """Begin a call; `send` sends its messages."""
        call.id, call.window = self._next_id, self._call_window
        self._next_id += 2
        self._calls[call.id] = call
        headers = self._first_headers if call.id == 1 else self._headers
        self._write(_HEADERS, _END_HEADERS, call.id, headers)

    def send(self, call: Call, body: bytes, *, last: bool = False) -> None:
        """Send a message, as soon as the server lets it be sent. After the last: no more."""
        self._unsent.append((call, b"\0" + len(body).to_bytes(4, "big") + body, last))
        self._send_unsent()

    def finish(self, call: Call) -> None:
        """Say that a call has no more messages."""
        self._unsent.append((call, b"", True))
        self._send_unsent()

    def close(self) -> None:
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one but in name
        self._transport.write(_PREFACE)
        if not self._reads:
            self._write(_SETTINGS, 0, 0, _SETTING.pack(_INITIAL_WINDOW_SIZE, _SMALL_WINDOW))
            return
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
        """Let the server send so much more."""
        self._write(_WINDOW_UPDATE, 0, 0, size.to_bytes(4, "big"))

    def _send_unsent(self) -> None:
        """Send what may be sent, oldest first."""
        while self._unsent:
            call, data, last = self._unsent[0]
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

    def _write(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """Write a frame: all that come together at once."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(_FRAME.pack(len(payload) << 8 | kind, flags, number))
        self._out.append(payload)

    def _flush(self) -> None:
        self._transport.write(b"".join(self._out))
        self._out.clear()


async def connect(target: str, path: str, *, reads: bool = True) -> Connection:
    """Connect to a server.

    Args:
        target: its HOST:PORT.
        path: of the method that is called on this connection.
        reads: whether the server may send without end; else a few KiB of each call.
    """
    host, _, port = target.rpartition(":")
    _, connection = await asyncio.get_running_loop().create_connection(
        lambda: Connection(target, path, reads=reads), host, int(port)
    )
    return connection


def _headers(target: str, path: str) -> tuple[bytes, bytes]:
    """Return the headers of a connection's first call, and those of all others.

    The first adds each to the table that the server keeps for the connection; the others name
    them by their places there, as every client's do.
    """
    always = b"\x83\x86"  # :method POST, :scheme http
    added = [
        _literal(4, path),
        _literal(1, target),
        _literal(31, "application/grpc"),
        _literal(58, "jobledger-benchmark"),
        _literal(0, "te", "trailers"),
        _literal(0, "grpc-accept-encoding", "identity"),
    ]
    # The newest has place 62.
    places = range(61 + len(added), 61, -1)
    return always + b"".join(added), always + bytes(0x80 | place for place in places)


def _literal(name: int, *words: str) -> bytes:
    """Write a header that is to be kept: its name by number, or, with 0, as the first word."""
    texts = (word.encode() for word in words)
    return bytes([0x40 | name]) + b"".join(bytes([len(text)]) + text for text in texts)
