"""The composition root: builds the server from its parts, and closes them in reverse order."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import grpc
from sqlalchemy import URL

from jobledger_server.database.file_lock import exclusive
from jobledger_server.database.url import parse_url
from jobledger_server.database.wait import wait_for_database
from jobledger_server.domain.job import MICROS_PER_SECOND, JobId, Micros
from jobledger_server.domain.output import OutputPiece
from jobledger_server.held import Holdings
from jobledger_server.ledger.claim_waiters import ClaimWaiters
from jobledger_server.ledger.ids import IdSource
from jobledger_server.ledger.ledger import Ledger, Publish, Written
from jobledger_server.ledger.long_poll import LongPoll
from jobledger_server.ledger.lost_answers import LostAnswers
from jobledger_server.ledger.output_rates import OutputRates
from jobledger_server.ledger.queue_control import QueueControl
from jobledger_server.ledger.reads import Reads
from jobledger_server.maintenance.group_canceller import GroupCanceller
from jobledger_server.maintenance.lookout import Lookout
from jobledger_server.maintenance.poller_records import PollerRecords
from jobledger_server.maintenance.promoter import Promoter
from jobledger_server.maintenance.reaper import Reaper
from jobledger_server.maintenance.retention import Retention
from jobledger_server.maintenance.sweeper import Sweeper
from jobledger_server.maintenance.unblocker import Unblocker
from jobledger_server.metrics import METRICS, Connections, Sources
from jobledger_server.rpc.access.access import Access
from jobledger_server.rpc.access.audit import audit, audit_setting
from jobledger_server.rpc.access.callers import Callers
from jobledger_server.rpc.access.lasting_calls import LastingCalls
from jobledger_server.rpc.access.watch_tokens import WatchTokens
from jobledger_server.rpc.incoming import RequestParser, request_parser
from jobledger_server.rpc.jobs.bulk import Bulk
from jobledger_server.rpc.jobs.creation_quotas import CreationQuotas
from jobledger_server.rpc.jobs.feed_streams import FeedStreams
from jobledger_server.rpc.jobs.groups import Groups
from jobledger_server.rpc.jobs.job_service import JobService
from jobledger_server.rpc.jobs.job_streams import JobStreams
from jobledger_server.rpc.jobs.output_streams import OutputStreams
from jobledger_server.rpc.jobs.shared_messages import SharedMessages
from jobledger_server.rpc.lists import Lists
from jobledger_server.rpc.methods import (
    EXTERNAL_SCALER,
    JOB_SERVICE,
    OPERATIONS,
    QUEUE_SERVICE,
    WEBHOOK_DELIVERY_SERVICE,
    WEBHOOK_SERVICE,
    WORKER_SERVICE,
)
from jobledger_server.rpc.operations.operations_service import OperationsService
from jobledger_server.rpc.queues.queue_service import QueueService
from jobledger_server.rpc.scaling.scaler_service import ScalerService
from jobledger_server.rpc.serving.admin import serving_admin
from jobledger_server.rpc.serving.calls import Calls
from jobledger_server.rpc.serving.drain import Drain
from jobledger_server.rpc.serving.health import follow_database
from jobledger_server.rpc.serving.health_port import serving_health
from jobledger_server.rpc.serving.measured import CallMetrics
from jobledger_server.rpc.serving.server import NewServer, open_calls, serving
from jobledger_server.rpc.webhooks.delivery_service import WebhookDeliveryService
from jobledger_server.rpc.webhooks.webhook_service import WebhookService
from jobledger_server.rpc.workers.work_streams import WorkStreams
from jobledger_server.rpc.workers.worker_requests import WorkerRequests
from jobledger_server.rpc.workers.worker_service import WorkerService
from jobledger_server.runtime.connections import free_connections
from jobledger_server.runtime.descriptors import connections_allowed
from jobledger_server.runtime.files import warn_of_readable_files
from jobledger_server.runtime.port import Unprotected
from jobledger_server.runtime.stopping import unless_stopped
from jobledger_server.runtime.supervision import Supervisor
from jobledger_server.runtime.tls import ServedCertificate, tls_files
from jobledger_server.settings import Settings
from jobledger_server.sql.database import open_database
from jobledger_server.sql.schema import migrate, require_supported
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.store import Change, FeedHead, Store
from jobledger_server.telemetry.instruments import readings
from jobledger_server.telemetry.job_metrics import JobMetrics
from jobledger_server.telemetry.otlp import sending_metrics, sending_spans
from jobledger_server.telemetry.prometheus import serving_metrics
from jobledger_server.telemetry.queue_metrics import QueueMetrics
from jobledger_server.telemetry.traces import Traces
from jobledger_server.tuning import Tuning
from jobledger_server.watch.feed_reader import FeedReader, filled_change_buffer
from jobledger_server.watch.hub import WatchHub
from jobledger_server.watch.outputs import OutputHub
from jobledger_server.watch.tail import Tail

log = logging.getLogger("jobledger.server")


@dataclass(frozen=True, slots=True)
class App:
    """A running server. `address` has the real port if the settings have port 0."""

    address: str
    hub: WatchHub
    claim_waiters: ClaimWaiters
    store: Store
    failed: asyncio.Event
    """Set when a task of the server has failed: the process has to stop."""

    reload: Callable[[], None]
    """Checks the access file at once."""

    held: Callable[[], Mapping[str, int]]
    """Returns by what it is how much callers hold now: nothing if nobody calls."""


class Notices(Protocol):
    """Tells the other servers of a database what happens here, and hears of it from them."""

    def committed(self) -> None:
        """Say soon that changes were committed here."""

    def ready(self) -> None:
        """Say soon that jobs are ready which no claim here waits for."""

    def appended(self, ids: Collection[JobId]) -> None:
        """Say soon that output was appended here to these jobs."""

    async def run(self) -> None:
        """Send and receive until cancelled."""


NewNotices = Callable[
    [Callable[[], None], Callable[[], None], Callable[[Collection[JobId] | None], None]], Notices
]
"""Makes Notices, from what is called when another server has committed changes, says that jobs are
ready, and has appended output: to these jobs, or perhaps to any."""


class Lock(Protocol):
    """Keeps other servers from a database, and remembers its feed; see `file_lock.Lock`."""

    def continues(self, head: FeedHead) -> bool:
        """Return whether `head` is of the recorded feed, and not behind the recorded head."""

    def record(self, head: FeedHead) -> None:
        """Record the feed's head, for the next server. Raises OSError."""


@dataclass(frozen=True, slots=True)
class OpenedStore:
    """A store, and what belongs to its database."""

    store: Store
    lock: Lock | None = None
    """Held if no other server can open the database."""

    connections: Callable[[], Connections] = dict
    """Returns the connections in use of each pool, and how many there may be."""

    notices: NewNotices | None = None
    """Makes what exchanges notices with other servers, of what to call when another one has
    committed changes, and when it has jobs that are ready. Without it, servers poll."""


@asynccontextmanager
async def open_app(
    settings: Settings,
    *,
    store: OpenedStore | None = None,
    grpc_server: NewServer | None = None,
    randbits: Callable[[int], int] = secrets.randbits,
    tuning: Tuning = Tuning(),
    stop: asyncio.Event | None = None,
) -> AsyncIterator[App]:
    """Serve during the block, then drain within `settings.grace` seconds.

    Args:
        settings: What a user decides.
        store: In place of the database that `settings` names; its owner closes it.
        grpc_server: Makes the server in place of gRPC's own.
        randbits: Returns an int of this many random bits, for ids.
        tuning: What no user decides. That of `store` is its owner's business.
        stop: Ends the wait for a database that is away, with Stopped.

    Raises AdminUnavailable, BadAccessFile, BadCertificate, BadDatabaseUrl, DatabaseInUse,
    MetricsUnavailable, PortUnavailable, SchemaError, Stopped, StoreFault, StoreUnavailable and
    Unprotected.
    """
    if settings.unprotected:
        raise Unprotected(settings.listen)
    files = tls_files(settings)
    certificate = None if files is None else ServedCertificate(files)
    supervisor, waiters = Supervisor(), ClaimWaiters()
    waiting, share = settings.max_waiting, settings.caller_share
    max_connections = connections_allowed(settings.max_connections)
    lasting = LastingCalls()
    access = Access(settings.access, lasting) if settings.access else None
    limits, lists = open_calls(settings), Lists()
    jobs, ids = JobMetrics(), IdSource(randbits)
    async with (
        nullcontext() if settings.otlp is None else sending_spans(settings.otlp) as traces,
        _opened_store(settings, tuning, stop or asyncio.Event())
        if store is None
        else nullcontext(store) as opened,
        _watched_feed(settings, opened, waiters, supervisor, tuning) as feed,
        Reads(opened.store, max_waiting=waiting, share=share, tuning=tuning) as reads,
        Ledger(
            opened.store,
            _publisher(feed, opened.lock, jobs, traces),
            max_waiting=waiting,
            share=share,
            written=_output_publisher(feed),
            rates=OutputRates(
                settings.job_output, settings.owner_output_rate, settings.output_rate
            ),
            hand_on=waiters.hand_on,
            # Without an access file there are no identities to write down.
            observe=None if access is None else audit,
            ids=ids,
            tuning=tuning,
        ) as ledger,
        QueueControl(
            opened.store,
            ledger,
            waiters,
            max_waiting=waiting,
            share=share,
            observe=None if access is None else audit_setting,
        ) as control,
        LongPoll(ledger, waiters, release_retry_seconds=tuning.release_retry_seconds) as long_poll,
        request_parser(share) as parser,
    ):
        core = _Core(
            settings, tuning, opened, waiters, feed, reads, ledger, control, long_poll, parser
        )
        tokens = WatchTokens(opened.store.queue_settings, ledger.known_limits, lasting)
        callers = Callers(access, tokens, lasting, check_seconds=tuning.caller_seconds)
        calls = CallMetrics(traces)
        drain = Drain(partial(_end_streams, feed.hub, waiters), quiet_seconds=tuning.quiet_seconds)
        served = Calls(drain, callers, parser, calls, tuning)
        creations = CreationQuotas(opened.store, count_seconds=tuning.count_seconds)
        batchers = (*ledger.batchers, *reads.batchers, control.batcher)
        sources = Sources(
            calls=calls,
            jobs=jobs,
            queues=QueueMetrics(tuning),
            hub=feed.hub,
            tail=feed.tail,
            waiters=waiters,
            ledger=ledger,
            batchers=batchers,
            admissions=(
                *feed.hub.admissions,
                *(each for batcher in batchers for each in batcher.admissions),
                parser.held,
                lists.admission,
                *limits.values(),
            ),
            rates=(served.rate, creations.rate, creations, ledger.rates),
            outputs=feed.outputs,
            connections=opened.connections,
            certificate=certificate,
            access=access,
        )
        read = partial(readings, METRICS, sources)
        for task in (*reads.tasks, *ledger.tasks, control.task):
            supervisor.supervise(task)
        services = _services(core, lists, creations, tokens, ids, access=access)
        async with (
            supervisor.running(**_maintenance(core, sources.queues)),
            nullcontext() if settings.metrics is None else serving_metrics(settings.metrics, read),
            nullcontext() if settings.otlp is None else sending_metrics(settings.otlp, read),
            nullcontext() if settings.admin is None else serving_admin(settings.admin),
            serving(
                settings,
                services,
                served,
                limits,
                drain,
                credentials=None if certificate is None else certificate.credentials(),
                max_connections=max_connections,
                new_server=grpc_server or grpc.aio.server,
            ) as server,
        ):
            tasks = {"grpc": server.terminated(), "callers": callers.run()}
            if access is not None:
                tasks["access"] = access.run()
            if settings.health_database:
                tasks["health"] = follow_database(
                    server.health, server.services, lambda: feed.tail.lag
                )
            if grpc_server is None:
                tasks["connections"] = free_connections(
                    server.address, max_connections, server.busy_peers
                )
            reload = (lambda: None) if access is None else access.reload
            held = Holdings(sources, served, drain, lasting, parser, lists, feed.reader, long_poll)
            async with (
                nullcontext()
                if settings.health is None
                else serving_health(settings.health, server.health),
                supervisor.running(**tasks),
            ):
                yield App(
                    server.address, feed.hub, waiters, opened.store, supervisor.failed, reload, held
                )


@asynccontextmanager
async def _opened_store(
    settings: Settings, tuning: Tuning, stop: asyncio.Event
) -> AsyncIterator[OpenedStore]:
    """Lock and migrate a database that is a file; else wait for it, and require its schema."""
    url = parse_url(settings.database)
    with exclusive(url) as lock:
        database = open_database(url)
        try:
            notices = None
            if database.dialect.name == "sqlite":
                await migrate(database)
                await require_supported(database)
            else:
                if settings.feed == "notify":
                    # The driver is an optional extra.
                    from jobledger_server.sql.postgresql.notifications import (  # noqa: PLC0415
                        Notifications,
                    )

                    notices = partial(Notifications, url)
                ask = partial(require_supported, database)
                await unless_stopped(wait_for_database(ask, settings.database_wait), stop)
            files = (settings.access, settings.tls_key, settings.database_file)
            warn_of_readable_files((*files, *_files(url)))
            yield OpenedStore(
                SqlStore(database, tuning=tuning), lock, database.connections, notices
            )
        finally:
            await database.close()


def _files(url: URL) -> Sequence[Path]:
    """Return the files of an SQLite database."""
    if url.get_backend_name() != "sqlite":
        return ()
    path = Path(str(url.database)).resolve()
    return [Path(f"{path}{suffix}") for suffix in ("", "-wal", "-shm", ".lock")]


@dataclass(frozen=True, slots=True)
class _WatchedFeed:
    """The feed of the database, as this process delivers it to watches."""

    hub: WatchHub
    reader: FeedReader
    tail: Tail
    outputs: OutputHub
    notices: Notices | None


@asynccontextmanager
async def _watched_feed(
    settings: Settings,
    opened: OpenedStore,
    waiters: ClaimWaiters,
    supervisor: Supervisor,
    tuning: Tuning,
) -> AsyncIterator[_WatchedFeed]:
    """Fill the change buffer, and keep the hub up to date during the block."""
    store, lock = opened.store, opened.lock
    waiters.sees_every_job = lock is not None
    poll_now = asyncio.Event()
    head = await _verified_head(store, lock)
    buffer = await filled_change_buffer(store, head, tuning)
    hub = WatchHub(
        buffer,
        poll_now.set,
        waiters.observe,
        max_watches=settings.max_watches,
        share=settings.caller_share,
        tuning=tuning,
    )
    tail = Tail(store, hub, poll_now, head, tuning=tuning)
    outputs = OutputHub(store, hub, tuning)
    tasks, notices = {"tail": tail.run()}, None
    if opened.notices is not None:
        notices = opened.notices(poll_now.set, waiters.ready_elsewhere.set, outputs.heard)
        tasks["notifications"] = notices.run()
        waiters.announce = notices.ready
    if lock is None:  # there may be other servers
        told = notices is not None
        tasks["outputs"] = outputs.run(tuning.output_poll_seconds if told else tuning.look_seconds)
    async with supervisor.running(**tasks):
        yield _WatchedFeed(hub, FeedReader(store, buffer, tuning), tail, outputs, notices)


async def _verified_head(store: Store, lock: Lock | None) -> FeedHead:
    """Return the feed's head, under a new epoch if the database's identity has changed."""
    head = await store.verify_identity()
    if lock is not None:
        if not lock.continues(head):
            head = await store.renew_epoch(head.epoch)
        lock.record(head)
    return head


def _output_publisher(feed: _WatchedFeed) -> Written:
    """Return what is called with the output of each commit of this process."""

    def written(pieces: Sequence[OutputPiece]) -> None:
        feed.outputs.written(pieces)
        if feed.notices is not None:
            feed.notices.appended({piece.job_id for piece in pieces})

    return written


def _publisher(
    feed: _WatchedFeed, lock: Lock | None, jobs: JobMetrics, traces: Traces | None
) -> Publish:
    """Return what is called with the changes of each commit of this process."""

    def publish(changes: Sequence[Change]) -> None:
        if changes and lock is not None:
            # Before any watch is sent a change. If the disk is full, the last record stays: it is
            # still a lower bound. The changes are committed already.
            with suppress(OSError):
                lock.record(FeedHead(feed.tail.epoch, changes[-1].seq))
        feed.hub.publish(changes)
        if changes and feed.notices is not None:
            feed.notices.committed()
        jobs.observe(changes)
        if traces is not None:
            traces.committed(changes)

    return publish


@dataclass(frozen=True, slots=True)
class _Core:
    """What the services and the maintenance of a server work with."""

    settings: Settings
    tuning: Tuning
    opened: OpenedStore
    waiters: ClaimWaiters
    feed: _WatchedFeed
    reads: Reads
    ledger: Ledger
    control: QueueControl
    long_poll: LongPoll
    parser: RequestParser


def _maintenance(core: _Core, queues: QueueMetrics) -> Mapping[str, Coroutine[Any, Any, None]]:
    """Return the tasks that do what happens without a call, by name."""
    settings, tuning, waiters = core.settings, core.tuning, core.waiters
    store, ledger = core.opened.store, core.ledger
    reaper = Reaper(ledger, tuning)
    promoter = Promoter(store, ledger, waiters, tuning)
    lookout = Lookout(
        store,
        ledger,
        waiters,
        overdue=reaper.wanted,
        due=promoter.wanted,
        heard=core.feed.tail.heard,
        tuning=tuning,
    )
    retain = settings.retain_terminal
    retention = Retention(
        store,
        ledger,
        jobs=None if retain is None else Micros(round(retain * MICROS_PER_SECOND)),
        deletions=Micros(round(settings.retain_deletions * MICROS_PER_SECOND)),
        tuning=tuning,
    )
    tasks = {
        "lookout": lookout.run(),
        "reaper": reaper.run(),
        "promoter": promoter.run(),
        "group_canceller": GroupCanceller(store, ledger, tuning).run(),
        "unblocker": Unblocker(store, ledger, waiters, tuning).run(),
        "retention": retention.run(),
        "sweeper": Sweeper(store, tuning).run(),
    }
    if core.opened.lock is None:  # there may be other servers
        tasks["ready_elsewhere"] = lookout.follow()
        tasks["pollers"] = PollerRecords(store, core.long_poll.pollers, tuning).run()
    if settings.metrics is not None or settings.otlp is not None:
        tasks["queue_metrics"] = queues.run(store)
    return tasks


def _services(
    core: _Core,
    lists: Lists,
    creations: CreationQuotas,
    tokens: WatchTokens,
    ids: IdSource,
    *,
    access: Access | None,
) -> Mapping[str, object]:
    """Return Jobledger's own services, by name."""
    settings, tuning, feed = core.settings, core.tuning, core.feed
    store, ledger, reads, hub = core.opened.store, core.ledger, core.reads, feed.hub
    control, long_poll = core.control, core.long_poll
    heartbeat, max_age = settings.heartbeat, settings.max_watch_age
    feed_streams = FeedStreams(
        hub,
        feed.reader,
        reads,
        lambda: feed.tail.epoch,
        heartbeat=heartbeat,
        max_age=max_age,
        message_bytes=tuning.feed_message_bytes,
        messages=SharedMessages(tuning),
    )
    jobs = JobService(
        store,
        ledger,
        reads,
        lists=lists,
        creations=creations,
        job_streams=JobStreams(
            hub, reads, heartbeat=heartbeat, max_age=max_age, messages=SharedMessages(tuning)
        ),
        feed_streams=feed_streams,
        output_streams=OutputStreams(
            feed.outputs,
            store.outputs,
            reads,
            heartbeat=heartbeat,
            max_age=max_age,
            tuning=tuning,
            messages=SharedMessages(tuning),
        ),
        bulk=Bulk(
            store,
            ledger,
            reads,
            lists,
            creations,
            Groups(store, ledger, reads, lists, creations, tuning),
            tuning,
        ),
        tokens=tokens,
        control=control,
    )
    workers = WorkerService(
        ledger,
        long_poll,
        LostAnswers(store, ledger),
        WorkerRequests(settings.url_schemes),
        WorkStreams(
            ledger,
            long_poll,
            hub,
            settings.url_schemes,
            core.parser,
            heartbeat=heartbeat,
            max_age=max_age,
            tuning=tuning,
        ),
    )
    services = {
        JOB_SERVICE: jobs,
        WORKER_SERVICE: workers,
        QUEUE_SERVICE: QueueService(store, control, lists, long_poll.pollers),
        WEBHOOK_SERVICE: WebhookService(
            store.webhooks,
            lists,
            feed_streams.head,
            feed_streams.moved,
            ids,
            settings.max_user_webhooks,
        ),
        WEBHOOK_DELIVERY_SERVICE: WebhookDeliveryService(
            store.webhooks, lists, None if access is None else access.permissions_of
        ),
        OPERATIONS: OperationsService(store, ledger, reads, hub, lists=lists, max_age=max_age),
        EXTERNAL_SCALER: ScalerService(store, core.waiters, lists, max_age, tuning.active_seconds),
    }
    return {path.strip("/"): service for path, service in services.items()}


def _end_streams(hub: WatchHub, waiters: ClaimWaiters) -> None:
    log.info("draining", extra={"watches": hub.watches})
    hub.drain()
    waiters.drain()
