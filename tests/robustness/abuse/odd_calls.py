"""An attack: calls of every method that are wrong in every way."""

import time
from collections.abc import Mapping, Sequence

from tests.support.http2 import (
    CANCEL,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    RST_STREAM,
    Connection,
    frame,
    literal,
    message,
    request_headers,
)

TOKEN = "a-token-that-stays-private"
SENT = "sent-by-a-caller"

METHODS = (
    "grpc.health.v1.Health/Check",
    "grpc.health.v1.Health/Watch",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "jobledger.v1.JobService/CreateJob",
    "jobledger.v1.JobService/WatchJob",
    "jobledger.v1.JobService/WatchJobs",
    "jobledger.v1.WorkerService/ClaimJobs",
    "jobledger.v1.WorkerService/Work",
    "google.longrunning.Operations/WaitOperation",
    f"jobledger.v1.JobService/{SENT}",
    f"{SENT}.Service/Method",
)


def odd_calls(target: str, *, methods: Sequence[str]) -> Mapping[str, object]:
    """Call each method in every way that is wrong, with a valid token."""
    token = literal(b"authorization", b"Bearer " + TOKEN.encode())
    sent = SENT.encode()
    compressed = b"\1" + len(sent).to_bytes(4, "big") + sent
    odd_headers = (
        literal(b"authorization", b"Bearer " + TOKEN.encode() + b"\xff"),
        literal(b"x-odd", sent + b"\xff\xfe"),
        literal(b"x-odd-bin", b"!" + sent),
        literal(b"grpc-timeout", sent),
        literal(b"grpc-timeout", b"1n"),
        literal(b"grpc-encoding", b"gzip"),
        literal(b"grpc-encoding", sent),
        literal(b"traceparent", sent + b"\xff"),
    )
    odd_bodies = (
        frame(DATA, END_STREAM, 1, message(b"\xff\xff" + sent)),
        frame(DATA, END_STREAM, 1, message(b"\x0a\xff" + sent)),
        frame(DATA, END_STREAM, 1, compressed),
        frame(DATA, END_STREAM, 1, message(sent)[:-1]),
        frame(DATA, 0, 1, message(sent)[:-1]),
        frame(DATA, 0, 1, message(b"")),
        frame(DATA, END_STREAM, 1, message(b"")),
        frame(DATA, END_STREAM, 1, b""),
        frame(DATA, 0, 1, b"\0\xff\xff\xff\xff" + sent),
        b"",
    )
    connections = []

    def call(method: str, header: bytes, *frames: bytes) -> None:
        connection = Connection(target)
        connections.append(connection)
        headers = request_headers(f"/{method}".encode(), token, header)
        connection.send(frame(HEADERS, END_HEADERS, 1, headers), *frames)

    for method in methods:
        for header in odd_headers:
            call(method, header, odd_bodies[6])
        for body in odd_bodies:
            call(method, b"", body)
            call(method, b"", body, frame(RST_STREAM, 0, 1, CANCEL))
        time.sleep(0.05)
        # Half of the calls end here without a word, some with an answer on its way.
        for connection in connections:
            connection.close()
        connections.clear()
    return {"methods": len(methods)}
