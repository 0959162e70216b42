"""HTTP/2 made by hand, for attackers: a library would refuse to send what they send.

RFC 9113 has the frames, RFC 7541 the headers.
"""

import socket
import sys
import threading
from collections import Counter
from contextlib import suppress
from typing import Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    *(0, 1, 3, 4, 6, 7),
    *(8, 9),
)
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
CANCEL = (8).to_bytes(4, "big")

INITIAL_WINDOW_SIZE = 4

GET_JOB = b"/jobledger.v1.JobService/GetJob"
CREATE_JOB = b"/jobledger.v1.JobService/CreateJob"
CLAIM_JOBS = b"/jobledger.v1.WorkerService/ClaimJobs"
WATCH_JOBS = b"/jobledger.v1.JobService/WatchJobs"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags])
    return head + stream.to_bytes(4, "big") + payload


def setting(name: int, value: int) -> bytes:
    return name.to_bytes(2, "big") + value.to_bytes(4, "big")


def literal(name: bytes, value: bytes, *, keep: bool = False) -> bytes:
    """Encode a header, by its words; `keep`: for the server to keep in its table."""
    return (b"\x40" if keep else b"\x00") + _string(name) + _string(value)


def indexed(number: int) -> bytes:
    """Encode a header that the table has; the newest one has number 62."""
    return bytes([0x80 | number])


def request_headers(path: bytes, *more: bytes) -> bytes:
    """Encode the headers of a gRPC call."""
    return b"".join(
        (
            b"\x83\x86",  # :method POST, :scheme http
            literal(b":path", path),
            literal(b":authority", b"localhost"),
            literal(b"content-type", b"application/grpc"),
            literal(b"te", b"trailers"),
            *more,
        )
    )


def message(body: bytes) -> bytes:
    """Return a gRPC message, not compressed."""
    return b"\0" + len(body).to_bytes(4, "big") + body


class Connection:
    """A connection of an attacker. Blocks; what the server sends is read and discarded."""

    def __init__(self, target: str, settings: bytes = b"", *, read: bool = True) -> None:
        self.socket = connect(target)
        self.socket.settimeout(None)  # a server that is silent has not closed it
        self.closed = threading.Event()
        """Set when the server has closed the connection."""
        self.window = 65_535
        """How many bytes of DATA the server takes now, over all streams."""
        self.answered: set[int] = set()
        """The streams on which the server has sent headers or a reset."""
        self.windows: Counter[int] = Counter()
        """How many bytes of DATA the server takes of each stream besides the first 65,535."""
        self.ended: set[int] = set()
        """The streams that the server has ended."""
        self.send(PREFACE, frame(SETTINGS, 0, 0, settings))
        if read:
            threading.Thread(target=self._read, daemon=True).start()

    def send(self, *frames: bytes) -> None:
        """Send frames. Raises OSError once the server has closed the connection."""
        self.socket.sendall(b"".join(frames))

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.closed.wait(1)  # until its reader has ended
        self.close()

    def _read(self) -> None:
        with suppress(OSError), self.socket.makefile("rb") as received:
            while head := received.read(9):
                payload = received.read(int.from_bytes(head[:3], "big"))
                stream = int.from_bytes(head[5:], "big")
                if head[3] == WINDOW_UPDATE and not stream:
                    self.window += int.from_bytes(payload, "big")
                elif head[3] == WINDOW_UPDATE:
                    self.windows[stream] += int.from_bytes(payload, "big")
                elif head[3] in (HEADERS, RST_STREAM):
                    self.answered.add(stream)
                    if head[3] == RST_STREAM or head[4] & END_STREAM:
                        self.ended.add(stream)
                elif head[3] == SETTINGS and not head[4] & ACK:
                    self.send(frame(SETTINGS, ACK, 0))
        self.closed.set()


def connect(target: str) -> socket.socket:
    """Connect from an address of the attacker's own, where the system has more of loopback's."""
    host, _, port = target.rpartition(":")
    source = ("127.0.0.2", 0) if sys.platform == "linux" else None
    return socket.create_connection((host, int(port)), timeout=10, source_address=source)


def is_open(connected: socket.socket) -> bool:
    """Whether the other side has not closed a connection; what it has sent is discarded."""
    connected.settimeout(0)
    try:
        while connected.recv(2**16):
            pass
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _string(text: bytes) -> bytes:
    return _integer(len(text), 7) + text


def _integer(number: int, bits: int) -> bytes:
    most = 2**bits - 1
    if number < most:
        return bytes([number])
    number -= most
    encoded = [most]
    while number >= 0x80:
        encoded.append(0x80 | number & 0x7F)
        number >>= 7
    return bytes([*encoded, number])
