"""The gRPC server: its options, its services, and how it starts and drains."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from jobledger_server.admission.admission import Admission
from jobledger_server.domain.limits import MAX_MESSAGE_BYTES
from jobledger_server.rpc.methods import EXTERNAL_SCALER, WORKER_SERVICE
from jobledger_server.rpc.serving.calls import Calls
from jobledger_server.rpc.serving.drain import Drain
from jobledger_server.rpc.serving.handlers import Handlers
from jobledger_server.rpc.serving.health import report_serving
from jobledger_server.rpc.serving.reflection import add_reflection
from jobledger_server.runtime.port import (
    PortUnavailable,
    check_socket_file,
    private_socket_file,
)
from jobledger_server.settings import Settings

OPTIONS = (
    # After a restart all watches reconnect at once. With the defaults gRPC cancels some calls when
    # more than 1,000 wait.
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 30_000),
    # A second server on the same port is a mistake, not a way to share it; see _options.
    ("grpc.so_reuseport", 0),
    # Idle clients may ping, with or without calls. By default gRPC disconnects clients that ping
    # more than once in five minutes. No strikes: disconnecting a client that floods the server with
    # pings costs gRPC so much time that others wait (docs/project/under-attack.md).
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_ping_strikes", 0),
    # Closes a connection that has not sent its HTTP/2 preface and settings by then.
    ("grpc.server_handshake_timeout_ms", 10_000),
    # A little more than the limit of a request, so that the service itself explains the refusal.
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES * 5 // 4),
    # What a client sends and nobody reads is buffered up to this, also of a watch, whose client has
    # nothing to send. By default it is 64 KiB, and then as much as the link can carry.
    ("grpc.http2.lookahead_bytes", 16 * 1024),
    ("grpc.http2.bdp_probe", 0),
    # Detect clients that vanished without closing their connections.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)

LARGEST_OPTION = 2**31 - 1
"""gRPC's options have 32 bits. Of a time in milliseconds this means no limit."""

STREAM_END_SECONDS = 5
"""How long a stream that has reached its age may take to end by itself, on a busy machine."""

MAX_SCALER_STREAMS = 1000
"""Streams of StreamIsActive, of all callers: one for each ScaledObject, all of one KEDA as a rule.
Each looks every few seconds while there are jobs."""

NewServer = Callable[..., grpc.aio.Server]
"""Makes a server: `grpc.aio.server`, or what stands in for it."""

log = logging.getLogger("jobledger.server")


@dataclass(frozen=True, slots=True)
class Serving:
    """A running server. `address` has the real port if the settings have port 0."""

    address: str
    busy_peers: Collection[str]
    """The peers that have a running call, by gRPC's names for them."""

    health: health_aio.HealthServicer
    services: Sequence[str]
    """The names of Jobledger's own services, as health has them."""

    terminated: Callable[[], Coroutine[Any, Any, None]]
    """Returns when the server was stopped. Raises RuntimeError if it stopped for another reason."""


@asynccontextmanager
async def serving(
    settings: Settings,
    services: Mapping[str, object],
    calls: Calls,
    open_calls: Mapping[str, Admission],
    drain: Drain,
    *,
    credentials: grpc.ServerCredentials | None,
    max_connections: int,
    new_server: NewServer,
) -> AsyncIterator[Serving]:
    """Serve these services, by name, health and reflection during the block, then drain.

    Draining takes at most `settings.grace` seconds: health reports NOT_SERVING, streams end
    with UNAVAILABLE, running calls finish.

    Raises:
        PortUnavailable: The server cannot listen on the address.
    """
    check_socket_file(settings.listen)
    server = new_server(options=_options(settings, max_connections))
    handlers = Handlers(server, calls, drain, open_calls)
    for name, service in services.items():
        handlers.add_service(name, service)
    names = tuple(services)
    # The generated code adds a service to a server; Handlers stands in for it.
    stand_in: Any = handlers
    health = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, stand_in)
    if settings.reflects:
        add_reflection(stand_in, (*names, "grpc.health.v1.Health"))
    try:
        with private_socket_file(settings.listen):
            if credentials is None:
                port = server.add_insecure_port(settings.listen)
            else:
                port = server.add_secure_port(settings.listen, credentials)
    except RuntimeError:
        await server.stop(None)
        raise PortUnavailable(settings.listen) from None
    await server.start()
    await report_serving(health, names, serving=True)
    address = f"{settings.listen.rpartition(':')[0]}:{port}" if port > 1 else settings.listen
    if settings.shares_port:
        # The parent process logs `serving` once all of them do.
        log.info("process_serving", extra={"address": address, "pid": os.getpid()})
    else:
        reflection, tls = settings.reflects, credentials is not None
        log.info("serving", extra={"address": address, "reflection": reflection, "tls": tls})
    if max_connections < settings.max_connections:
        facts = {"max_connections": settings.max_connections, "allowed": max_connections}
        log.warning("descriptor_limit_low", extra=facts)

    async def terminated() -> None:
        # Shielded: cancelling it would cancel what `server.stop` waits for.
        await asyncio.shield(asyncio.ensure_future(server.wait_for_termination()))
        if not drain.begun.is_set():
            raise RuntimeError("gRPC does not accept calls any more")

    try:
        yield Serving(address, calls.running, health, names, terminated)
    finally:
        await health.enter_graceful_shutdown()
        await _stop(server, drain, calls, settings.grace)
        log.info("stopped")


async def _stop(server: grpc.aio.Server, drain: Drain, calls: Calls, grace: float) -> None:
    """Drain: see drain.py."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + grace
    drain.begun.set()
    with suppress(TimeoutError):
        async with asyncio.timeout(grace / 2):
            await drain.quiet()
    drain.end_other_streams()
    left = max(0.0, deadline - loop.time())
    stopping = asyncio.create_task(server.stop(left))
    await asyncio.sleep(0)  # it has begun: clients' next calls go to another server
    drain.end_streams()
    await asyncio.wait([stopping], timeout=left)
    if not stopping.done() and (running := calls.running.total()):
        log.warning("grace_period_exceeded", extra={"calls": running})
    await stopping
    # gRPC does not wait for the handlers that it has cancelled, and they may still read.
    with suppress(TimeoutError):
        async with asyncio.timeout_at(deadline):
            await drain.idle.wait()


def open_calls(settings: Settings) -> Mapping[str, Admission]:
    """Return the limits of how many of the longest calls are open, by the path of the method."""
    total = settings.max_watches
    each = max(1, int(total * settings.caller_share))
    return {
        f"{WORKER_SERVICE}Work": Admission(
            "work_streams", total=total, each=each, quota=lambda quotas: quotas.work_streams
        ),
        f"{WORKER_SERVICE}ClaimJobs": Admission("open_claims", total=total, each=each),
        f"{EXTERNAL_SCALER}StreamIsActive": Admission(
            "scaler_streams", total=MAX_SCALER_STREAMS, each=MAX_SCALER_STREAMS
        ),
    }


def _options(settings: Settings, max_connections: int) -> list[tuple[str, int]]:
    options = dict(OPTIONS)
    options["grpc.max_concurrent_streams"] = settings.max_streams
    # gRPC counts a call until it deallocates it, which may be shortly after the client has received
    # the answer and started the next call. With less spare capacity it refuses some of these.
    options["grpc.http2.max_deallocating_streams"] = settings.max_streams
    options["grpc.max_allowed_incoming_connections"] = max_connections
    if settings.max_connection_idle:
        options["grpc.max_connection_idle_ms"] = round(settings.max_connection_idle * 1000)
    if settings.shares_port:
        options["grpc.so_reuseport"] = 1
    if settings.max_watch_age:
        # A connection that reaches the maximum age of a watch accepts no new calls. Otherwise a
        # watch would reconnect over the same connection, to the same server.
        options["grpc.max_connection_age_ms"] = round(settings.max_watch_age * 1000)
        # Long enough for every stream to end by itself, also for one that was opened just before.
        # A stream that is still open then belongs to a client that does not read.
        grace = settings.max_watch_age * 1.25 + STREAM_END_SECONDS
        options["grpc.max_connection_age_grace_ms"] = round(grace * 1000)
    return [(name, min(value, LARGEST_OPTION)) for name, value in options.items()]
