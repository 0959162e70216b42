"""Attacks on Work by an identity with quotas: they need a token, and nothing else is wrong."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import grpc

from jobledger.v1 import worker_service_pb2 as pb
from tests.robustness.abuse.attacker import LONGEST_SECONDS, begin, parent_waits, wait_for_parent
from tests.support.http2 import (
    DATA,
    END_HEADERS,
    HEADERS,
    Connection,
    frame,
    literal,
    message,
    request_headers,
)

WORK = "/jobledger.v1.WorkerService/Work"

UNKNOWN = "00000000-0000-7000-8000-000000000000"
"""The id of no job."""

STREAMS_OF_A_CONNECTION = 50

OWN_SECONDS = 1.0
"""How long an attacker needs a processor for itself, until the server takes no more at once."""

OPENING_SECONDS = 6.0
"""How long an attack takes to open its streams."""

HELLO = pb.WorkHello(worker_id="eve", job_types=["render"], lease_duration={"seconds": 5})
"""With the shortest lease, so that leases are renewed most often."""

MESSAGES: Mapping[str, pb.WorkRequest] = {
    "empty updates": pb.WorkRequest(updates=[pb.JobUpdate()] * 1000),
    "updates of unknown jobs": pb.WorkRequest(
        updates=[pb.JobUpdate(job_id=UNKNOWN, attempt=1, progress=pb.ProgressUpdate(progress=1))]
        * 1000
    ),
    "empty messages": pb.WorkRequest(),
}


def flood(target: str, *, token: str, what: str, streams: int) -> Counter[str]:
    """Send one kind of message on streams, as fast as each takes it, and read the results."""
    return _work(target, token, [HELLO] * streams, MESSAGES[what])


def held_jobs(target: str, *, token: str, job_ids: Sequence[str], streams: int) -> Counter[str]:
    """Hold the same jobs on streams, and have their leases renewed as often as can be."""
    return _work(target, token, [_holding(job_ids)] * streams, pb.WorkRequest())


def many_holdings(target: str, *, token: str, streams: int) -> Counter[str]:
    """Hold on each stream a thousand jobs that there are not."""
    ids = [f"{UNKNOWN[:-6]}{n:06}" for n in range(1000)]
    return _work(target, token, [_holding(ids)] * streams, None)


def unread_results(target: str, *, token: str, streams: int) -> Counter[str]:
    """Send refused updates on streams, and read none of the results."""
    update = MESSAGES["updates of unknown jobs"]
    return _work(target, token, [HELLO] * streams, update, read=False)


def unfinished_messages(
    target: str, *, token: str, connections: int, streams: int, size: int = 1_250_000
) -> Mapping[str, int]:
    """Begin a second message on each stream, send almost all of it, and never the rest."""
    body = message(pb.WorkRequest(hello=HELLO).SerializeToString())
    head = b"\0" + size.to_bytes(4, "big")
    return _unfinished(target, WORK, token, connections, streams, body + head, size)


def half_sent_requests(
    target: str, *, token: str, connections: int, streams: int, size: int = 1_250_000
) -> Mapping[str, int]:
    """Begin the request of a unary call on each stream, and never finish it."""
    path, head = "/jobledger.v1.JobService/CreateJob", b"\0" + size.to_bytes(4, "big")
    return _unfinished(target, path, token, connections, streams, head, size)


def _unfinished(
    target: str,
    path: str,
    token: str,
    connections: int,
    streams: int,
    first: bytes,
    size: int,
) -> Mapping[str, int]:
    bearer = literal(b"authorization", f"Bearer {token}".encode())
    headers = request_headers(path.encode(), *([bearer] if token else ()))
    opened = [Connection(target) for _ in range(connections)]
    numbers = range(1, 2 * streams, 2)
    for stream in numbers:
        for connection in opened:
            connection.send(
                frame(HEADERS, END_HEADERS, stream, headers), frame(DATA, 0, stream, first)
            )
            connection.window -= len(first)
        time.sleep(OPENING_SECONDS / streams)  # a burst of calls is another attack
    begin()
    part = bytes(16_000)
    sent = dict.fromkeys(((c, s) for c in range(connections) for s in numbers), 0)
    total = 0
    while parent_waits():
        moved = False
        for number, connection in enumerate(opened):
            for stream in numbers:
                key = number, stream
                if connection.window < len(part):
                    break
                if stream in connection.ended or sent[key] + len(part) >= size:
                    continue
                if connection.windows.get(stream, 0) + 65_535 - len(first) - sent[key] < len(part):
                    continue
                try:
                    connection.send(frame(DATA, 0, stream, part))
                except OSError:
                    break
                connection.window -= len(part)
                sent[key] += len(part)
                total += len(part)
                moved = True
        if not moved:
            time.sleep(0.01)
    refused = sum(len(connection.ended) for connection in opened)
    return {"streams": len(sent), "refused": refused, "bytes": total}


def _holding(job_ids: Iterable[str]) -> pb.WorkHello:
    hello = pb.WorkHello(holding=[pb.HeldJob(job_id=each, attempt=1) for each in job_ids])
    hello.MergeFrom(HELLO)
    return hello


def _work(
    target: str,
    token: str,
    hellos: Sequence[pb.WorkHello],
    request: pb.WorkRequest | None,
    *,
    read: bool = True,
) -> Counter[str]:
    """Open a stream with each hello, and send a request on each again and again.

    Return how many streams were admitted, and what was sent and read on them.
    """
    done: Counter[str] = Counter()
    data = None if request is None else request.SerializeToString()

    async def send(stream: Any) -> None:
        while data is not None:
            await stream.write(data)
            done["sent"] += 1

    async def work(channel: grpc.aio.Channel, hello: bytes) -> None:
        metadata = [("authorization", f"Bearer {token}")]
        stream: Any = channel.stream_stream(WORK)(metadata=metadata, timeout=LONGEST_SECONDS)
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await stream.write(hello)
            if await stream.read() is grpc.aio.EOF:
                return
            done["streams"] += 1
            sending = asyncio.ensure_future(send(stream))
            while read and await stream.read() is not grpc.aio.EOF:
                done["read"] += 1
            await sending

    async def attack() -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [
            grpc.aio.insecure_channel(target, options)
            for _ in range(0, len(hellos), STREAMS_OF_A_CONNECTION)
        ]
        working = [
            asyncio.ensure_future(
                work(
                    channels[number // STREAMS_OF_A_CONNECTION],
                    pb.WorkRequest(hello=hello).SerializeToString(),
                )
            )
            for number, hello in enumerate(hellos)
        ]
        await asyncio.sleep(OWN_SECONDS)
        begin()
        await asyncio.to_thread(wait_for_parent)
        for each in working:
            each.cancel()
        for channel in channels:
            await channel.close()

    asyncio.run(attack())
    return done
