"""The composition root: builds the server of its parts, starts it, drains it, stops it."""

import asyncio
import logging
import os
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.longrunning import operations_pb2
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.reflection_pb2_grpc import add_ServerReflectionServicer_to_server
from sqlalchemy import URL

from jobledger.v1 import job_service_pb2, worker_service_pb2
from jobledger_server.admission.admission import Admission
from jobledger_server.domain.job import MICROS_PER_SECOND, Micros
from jobledger_server.ledger.claim_waiters import ClaimWaiters
from jobledger_server.ledger.ledger import Ledger, Publish
from jobledger_server.ledger.long_poll import LongPoll
from jobledger_server.ledger.reads import Reads
from jobledger_server.maintenance.reaper import Reaper
from jobledger_server.maintenance.retention import Retention
from jobledger_server.rpc.access import read_access_file
from jobledger_server.rpc.drain import Drain
from jobledger_server.rpc.handlers import Handlers, Limits
from jobledger_server.rpc.incoming import Intake
from jobledger_server.rpc.jobs.feed_streams import FeedStreams
from jobledger_server.rpc.jobs.job_service import JobService
from jobledger_server.rpc.lists import Lists
from jobledger_server.rpc.operations.operation_requests import OperationsRequests
from jobledger_server.rpc.operations.operations_service import OperationsService
from jobledger_server.rpc.requests import Requests
from jobledger_server.rpc.validation import MAX_MESSAGE_BYTES
from jobledger_server.rpc.workers.report_streams import ReportStreams
from jobledger_server.rpc.workers.worker_ledger import WorkerLedger
from jobledger_server.rpc.workers.worker_service import WorkerService
from jobledger_server.runtime.connections import free_connections
from jobledger_server.runtime.descriptors import connections_allowed
from jobledger_server.runtime.port import PortUnavailable
from jobledger_server.runtime.supervision import Supervisor
from jobledger_server.settings import Settings
from jobledger_server.sql.database_url import open_database, parse_url
from jobledger_server.sql.dialect import Database
from jobledger_server.sql.schema import migrate, require_head
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.sql.sqlite.file_lock import Lock, exclusive
from jobledger_server.store import Change, FeedHead, Store
from jobledger_server.telemetry.logs import lines_lost
from jobledger_server.telemetry.metrics import Metrics, serving_metrics
from jobledger_server.watch.feed_reader import FeedReader, filled_change_buffer
from jobledger_server.watch.hub import WatchHub
from jobledger_server.watch.tail import Tail

_SERVICES: tuple[ServiceDescriptor, ...] = (
    job_service_pb2.DESCRIPTOR.services_by_name["JobService"],
    worker_service_pb2.DESCRIPTOR.services_by_name["WorkerService"],
    operations_pb2.DESCRIPTOR.services_by_name["Operations"],
)

OPTIONS = (
    # After a restart every watcher comes back at once: beyond 1,000 waiting calls the default
    # would cancel some of them.
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 30_000),
    # A second server on the same port is a mistake, not a way to share it; but see _options.
    ("grpc.so_reuseport", 0),
    # Idle clients may check whether the connection still stands, with or without calls; by
    # default gRPC disconnects those that do so more than once in five minutes. No strikes: to
    # disconnect who floods with pings takes gRPC so long that others wait (docs/exposure.md).
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_ping_strikes", 0),
    # A connection that has not sent its HTTP/2 preface and settings by then is closed.
    ("grpc.server_handshake_timeout_ms", 10_000),
    # A little more than a request may have, so that the service itself says what is wrong.
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES * 5 // 4),
    # A request that nobody reads yet holds 64 KiB at most. By default gRPC takes megabytes of
    # it, up to what the link could carry: 2,000 creations of 250 kB held a fifth more.
    ("grpc.http2.bdp_probe", 0),
    # Find clients that vanished without a word.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)

MAX_FOREIGN_STREAMS = 1_000
"""Streams of health and reflection, of all callers together."""

log = logging.getLogger("jobledger.server")


@dataclass(frozen=True, slots=True)
class App:
    """A server that serves. `address` has the real port where 0 was asked for."""

    address: str
    hub: WatchHub
    claim_waiters: ClaimWaiters
    store: Store
    failed: asyncio.Event
    """Set when a part of the server has ended by an unexpected error: it has to stop."""


@asynccontextmanager
async def open_app(settings: Settings) -> AsyncIterator[App]:
    """Serve for as long as the block lasts, then drain.

    Draining: health says NOT_SERVING, watchers are sent elsewhere, running calls
    finish, and then the database is closed; all within `settings.grace` seconds.
    Raises BadDatabaseUrl, DatabaseInUse, SchemaError, StoreFault, StoreUnavailable,
    BadAccessFile, MetricsUnavailable and PortUnavailable.
    """
    async with AsyncExitStack() as stack:
        database, lock = await stack.enter_async_context(_open_database(settings))
        supervisor = Supervisor()
        store = SqlStore(database)
        poll_now = asyncio.Event()
        head = await _verified_head(store, lock)
        buffer = await filled_change_buffer(store, head)
        claim_waiters = ClaimWaiters()
        share = settings.caller_share
        hub = WatchHub(
            buffer,
            poll_now.set,
            claim_waiters.observe,
            max_watches=settings.max_watches,
            share=share,
        )
        tail = Tail(store, hub, poll_now, head)
        await stack.enter_async_context(supervisor.running("tail", tail.run()))
        waiting = settings.max_waiting
        reads = await stack.enter_async_context(Reads(store, max_waiting=waiting, share=share))
        publish: Publish = hub.publish
        if lock is not None:
            publish = _recording(lock, tail, hub)
        elif settings.feed == "notify":
            publish = await stack.enter_async_context(
                _notifying(database.url, hub, poll_now, supervisor)
            )
        ledger = await stack.enter_async_context(
            Ledger(store, publish, max_waiting=waiting, share=share, sizes=reads.sizes)
        )
        for task in (*reads.tasks, *ledger.tasks):
            supervisor.watch(task)
        reaper, retention = Reaper(store, ledger), _retention(settings, store, ledger)
        await stack.enter_async_context(supervisor.running("reaper", reaper.run()))
        await stack.enter_async_context(supervisor.running("retention", retention.run()))
        requests, lists = Requests(settings.url_schemes), Lists()
        heartbeat, max_age = settings.heartbeat, settings.max_watch_age
        feed_streams = FeedStreams(
            hub, FeedReader(store, buffer), lambda: tail.epoch, heartbeat=heartbeat, max_age=max_age
        )
        jobs = JobService(
            store,
            ledger,
            reads,
            hub,
            requests,
            lists=lists,
            feed_streams=feed_streams,
            heartbeat=heartbeat,
            max_watch_age=max_age,
        )
        claims = LongPoll(ledger, claim_waiters)
        stack.push_async_callback(claims.finish)
        worker_ledger = WorkerLedger(ledger, claims)
        drain = Drain()
        report_streams = ReportStreams(worker_ledger, requests, drain.begun, max_age=max_age)
        workers = WorkerService(worker_ledger, requests, report_streams)
        access = read_access_file(settings.access) if settings.access else None
        operations = OperationsService(
            store,
            ledger,
            reads,
            hub,
            OperationsRequests(access),
            lists=lists,
            max_age=max_age,
        )
        if settings.metrics is not None:
            stack.enter_context(serving_metrics(settings.metrics, _metrics(hub, tail, ledger)))
        server = grpc.aio.server(options=_options(settings))
        intake = await stack.enter_async_context(Intake(settings.caller_share))
        handlers = Handlers(server, drain, access, intake, _limits(settings))
        for service, implementation in zip(_SERVICES, (jobs, workers, operations), strict=True):
            handlers.add_service(service, implementation)
        serving = _serving(
            settings, server, handlers, drain=drain, hub=hub, claim_waiters=claim_waiters
        )
        address = await stack.enter_async_context(serving)
        await stack.enter_async_context(supervisor.running("grpc", _until_it_ends(server, drain)))
        await stack.enter_async_context(
            supervisor.running(
                "connections",
                free_connections(
                    address, connections_allowed(settings.max_connections), handlers.calls
                ),
            )
        )
        yield App(address, hub, claim_waiters, store, supervisor.failed)


async def _verified_head(store: Store, lock: Lock | None) -> FeedHead:
    """Return the feed's head, under a new epoch where the database is another than it was."""
    head = await store.verify_identity()
    if lock is not None:
        if not lock.continues(head):
            head = await store.renew_epoch(head.epoch)
        lock.record(head)
    return head


async def _until_it_ends(server: grpc.aio.Server, drain: Drain) -> None:
    """Return when the server was stopped. Raises what it ended by, if it ended by itself."""
    # Cancelled itself, it would cancel what `server.stop` waits for.
    await asyncio.shield(asyncio.ensure_future(server.wait_for_termination()))
    if not drain.begun.is_set():
        raise RuntimeError("gRPC takes no calls any more")


@asynccontextmanager
async def _open_database(settings: Settings) -> AsyncIterator[tuple[Database, Lock | None]]:
    url = parse_url(settings.database)
    with exclusive(url) as lock:
        database = open_database(url)
        try:
            if database.dialect.name == "sqlite":
                await migrate(database)
            await require_head(database)
            _warn_of_readable_files(settings, url)
            yield database, lock
        finally:
            await database.close()


def _warn_of_readable_files(settings: Settings, url: URL) -> None:
    """Log which of the files that hold secrets or jobs others than their owner may read."""
    files = [settings.access, settings.database_file]
    if url.get_backend_name() == "sqlite":
        path = Path(str(url.database)).resolve()
        files += [Path(f"{path}{suffix}") for suffix in ("", "-wal", "-shm", ".lock")]
    for file in files:
        mode = stat.S_IMODE(file.stat().st_mode) if file is not None and file.exists() else 0
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            log.warning("file_readable_by_others", extra={"file": str(file), "mode": f"{mode:04o}"})


def _retention(settings: Settings, store: Store, ledger: Ledger) -> Retention:
    retain = settings.retain_terminal
    return Retention(
        store,
        ledger,
        jobs=None if retain is None else Micros(round(retain * MICROS_PER_SECOND)),
        deletions=Micros(round(settings.retain_deletions * MICROS_PER_SECOND)),
    )


def _recording(lock: Lock, tail: Tail, hub: WatchHub) -> Publish:
    """Note how far the feed has come before anybody is told of it."""

    def publish(changes: Sequence[Change]) -> None:
        if changes:
            lock.record(FeedHead(tail.epoch, changes[-1].seq))
        hub.publish(changes)

    return publish


@asynccontextmanager
async def _notifying(
    url: URL, hub: WatchHub, poll_now: asyncio.Event, supervisor: Supervisor
) -> AsyncIterator[Publish]:
    """Exchange notifications with other servers for as long as the block lasts."""
    # The driver is an extra, wanted only where it is used.
    from jobledger_server.sql.postgresql.notifications import Notifications  # noqa: PLC0415

    notifications = Notifications(url, poll_now.set)

    def publish(changes: Sequence[Change]) -> None:
        hub.publish(changes)
        if changes:
            notifications.committed()

    async with supervisor.running("notifications", notifications.run()):
        yield publish


def _limits(settings: Settings) -> Limits:
    def admission(limit: str, total: int) -> Admission:
        each = max(1, int(total * settings.caller_share))
        return Admission(limit, total=total, each=each)

    return Limits(
        streams=admission("streams of reports", settings.max_watches),
        claims=admission("waiting claims", settings.max_watches),
        foreign=admission("streams of health and reflection", MAX_FOREIGN_STREAMS),
    )


def _metrics(hub: WatchHub, tail: Tail, ledger: Ledger) -> Metrics:
    return {
        "jobledger_feed_seq": ("The newest place in the feed known here.", lambda: hub.seq),
        "jobledger_feed_holes_total": (
            "Places in the feed that were found empty. Each is a bug: please report it.",
            lambda: tail.holes,
        ),
        "jobledger_watches": ("Watches open now.", lambda: hub.watches),
        "jobledger_store_errors_total": (
            "Writes that the database refused or did not answer, by the kind of its error.",
            lambda: ledger.store_errors,
        ),
        "jobledger_log_lines_lost_total": (
            "Lines of the log that standard error did not take in time.",
            lines_lost,
        ),
    }


def _options(settings: Settings) -> list[tuple[str, int]]:
    options = dict(OPTIONS)
    options["grpc.max_concurrent_streams"] = settings.max_streams
    options["grpc.max_allowed_incoming_connections"] = connections_allowed(settings.max_connections)
    if settings.max_connection_idle:
        options["grpc.max_connection_idle_ms"] = round(settings.max_connection_idle * 1000)
    if settings.shares_port:
        options["grpc.so_reuseport"] = 1
    if settings.max_watch_age:
        # A connection that is as old as a watch may be takes no new calls, and ends with its last
        # one: else a watch that moves on would come back over the same connection, to the same
        # server.
        options["grpc.max_connection_age_ms"] = round(settings.max_watch_age * 1000)
        # Long enough for every stream to end by itself. What is left then belongs to a client
        # that does not read.
        options["grpc.max_connection_age_grace_ms"] = round(settings.max_watch_age * 1250)
    return list(options.items())


@asynccontextmanager
async def _serving(
    settings: Settings,
    server: grpc.aio.Server,
    handlers: Any,  # takes what a server takes
    *,
    drain: Drain,
    hub: WatchHub,
    claim_waiters: ClaimWaiters,
) -> AsyncIterator[str]:
    """Serve what the server has been given, and health and reflection of it."""
    own = [service.full_name for service in _SERVICES]
    health = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, handlers)
    reflect = settings.only_loopback if settings.reflection is None else settings.reflection
    if reflect:
        names = (*own, "grpc.health.v1.Health", reflection.SERVICE_NAME)
        add_ServerReflectionServicer_to_server(reflection.aio.ReflectionServicer(names), handlers)
    try:
        port = server.add_insecure_port(settings.listen)
    except RuntimeError:
        await server.stop(None)
        raise PortUnavailable(settings.listen) from None
    await server.start()
    for name in own:
        await health.set(name, health_pb2.HealthCheckResponse.SERVING)
    address = f"{settings.listen.rpartition(':')[0]}:{port}" if port > 1 else settings.listen
    if settings.shares_port:
        # That all of them serve, their parent says.
        log.info("process_serving", extra={"address": address, "pid": os.getpid()})
    else:
        log.info("serving", extra={"address": address, "reflection": reflect})
    allowed = connections_allowed(settings.max_connections)
    if allowed < settings.max_connections:
        facts = {"max_connections": settings.max_connections, "allowed": allowed}
        log.warning("descriptor_limit_low", extra=facts)
    try:
        yield address
    finally:
        log.info("draining", extra={"watches": hub.watches})
        loop = asyncio.get_running_loop()
        deadline = loop.time() + settings.grace
        await health.enter_graceful_shutdown()
        drain.begun.set()
        hub.drain()
        claim_waiters.drain()
        try:
            # Half of the grace: the rest is for answers that are still being sent.
            async with asyncio.timeout(settings.grace / 2):
                await drain.finished()
        except TimeoutError:
            log.warning("grace_period_exceeded", extra={"watches": hub.watches})
        await server.stop(max(0.0, deadline - loop.time()))
        log.info("stopped")
