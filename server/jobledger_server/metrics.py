"""All metrics of a server, each declared once: what it is called, what it means, where it is read.

Exporters read them, and the table in docs/reference/metrics.md is made of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobledger_server.admission.admission import Admission
from jobledger_server.admission.rates import RateLimit
from jobledger_server.ledger.batcher import Batcher
from jobledger_server.ledger.claim_waiters import ClaimWaiters
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.ledger.output_rates import OutputRates
from jobledger_server.rpc.access.access import Access
from jobledger_server.rpc.jobs.creation_quotas import CreationQuotas
from jobledger_server.rpc.serving.measured import CallMetrics
from jobledger_server.runtime.tls import ServedCertificate
from jobledger_server.telemetry.instruments import Metric, Value
from jobledger_server.telemetry.job_metrics import MAX_REASONS, JobMetrics
from jobledger_server.telemetry.logs import lines_lost
from jobledger_server.telemetry.queue_metrics import QueueMetrics
from jobledger_server.watch.hub import WatchHub
from jobledger_server.watch.outputs import OutputHub
from jobledger_server.watch.tail import Tail

Connections = Mapping[str, tuple[int, int]]
"""By pool of the database: the connections that are in use, and how many there may be."""


@dataclass(frozen=True, slots=True)
class Sources:
    """The parts of a server that its metrics are read from."""

    calls: CallMetrics
    jobs: JobMetrics
    queues: QueueMetrics
    hub: WatchHub
    tail: Tail
    waiters: ClaimWaiters
    ledger: Ledger
    batchers: Sequence[Batcher[Any, Any]]
    admissions: Sequence[Admission]
    rates: Sequence[RateLimit | CreationQuotas | OutputRates]
    outputs: OutputHub
    connections: Callable[[], Connections]
    certificate: ServedCertificate | None
    access: Access | None


def _refused(sources: Sources) -> Mapping[tuple[str, ...], Value]:
    limits: tuple[Admission | RateLimit | CreationQuotas | OutputRates, ...] = (
        *sources.admissions,
        *sources.rates,
    )
    return {
        (limit.limit, scope): count for limit in limits for scope, count in limit.refused.items()
    }


def _failing_reloads(sources: Sources) -> Mapping[str, int]:
    certificate, access = sources.certificate, sources.access
    return {
        "certificate": 0 if certificate is None else certificate.reload_fails,
        "access_file": 0 if access is None else access.reload_fails,
        "issuer_keys": 0 if access is None else access.failing_issuers,
    }


_CALL = ("grpc.method", "grpc.status")

METRICS: tuple[Metric[Sources], ...] = (
    Metric(
        "grpc.server.call.started",
        "counter",
        "{call}",
        "Calls that have begun.",
        ("grpc.method",),
        lambda s: s.calls.started,
    ),
    Metric(
        "grpc.server.call.duration",
        "histogram",
        "s",
        "Time from the beginning of a call to its end. Of a stream, that is how long it was open.",
        _CALL,
        lambda s: s.calls.seconds,
    ),
    Metric(
        "grpc.server.call.sent_total_compressed_message_size",
        "histogram",
        "By",
        "Bytes of all messages of a call that were sent. The server does not compress.",
        _CALL,
        lambda s: s.calls.sent,
    ),
    Metric(
        "grpc.server.call.rcvd_total_compressed_message_size",
        "histogram",
        "By",
        "Bytes of all messages of a call that were received, after decompression.",
        _CALL,
        lambda s: s.calls.received,
    ),
    Metric(
        "jobledger.jobs.created",
        "counter",
        "{job}",
        "Jobs created at this server.",
        ("job_type",),
        lambda s: s.jobs.created,
    ),
    Metric(
        "jobledger.jobs.finished",
        "counter",
        "{job}",
        "Jobs that have reached a terminal state at this server. The reason is that of the error: "
        f"the service's own, and the first {MAX_REASONS} that workers gave for a type; others are "
        "`other`. It is empty without an error.",
        ("job_type", "status", "reason"),
        lambda s: s.jobs.finished,
    ),
    Metric(
        "jobledger.jobs.requeued",
        "counter",
        "{job}",
        "Attempts that were lost or released and whose job waits for another one.",
        ("job_type",),
        lambda s: s.jobs.requeued,
    ),
    Metric(
        "jobledger.job.queue_wait",
        "histogram",
        "s",
        "Time from a job's creation, or the time that it is scheduled for, to its first start.",
        ("job_type",),
        lambda s: s.jobs.waits,
    ),
    Metric(
        "jobledger.job.run_time",
        "histogram",
        "s",
        "Time from a job's first start to its terminal state.",
        ("job_type", "status"),
        lambda s: s.jobs.runs,
    ),
    Metric(
        "jobledger.job.attempts",
        "histogram",
        "{attempt}",
        "Attempts of a job, once it has finished.",
        ("job_type",),
        lambda s: s.jobs.attempts,
    ),
    Metric(
        "jobledger.jobs",
        "gauge",
        "{job}",
        "Jobs in the database that are `ready` for a worker, `blocked` by a concurrency limit, "
        "`scheduled` for later, `held` by a worker or `waiting`, as groups are. Every server shows "
        "the same.",
        ("job_type", "state"),
        lambda s: s.queues.jobs,
    ),
    Metric(
        "jobledger.oldest_wait",
        "gauge",
        "s",
        "How long the oldest job waits that a worker may claim, since its creation or since it "
        "became due. Paused types have none. Every server shows the same.",
        ("job_type",),
        lambda s: s.queues.oldest_waits,
    ),
    Metric(
        "jobledger.batch.size",
        "histogram",
        "{item}",
        "Commands, claims and reads that were served together.",
        ("batch",),
        lambda s: {each.name: each.sizes for each in s.batchers},
    ),
    Metric(
        "jobledger.batch.duration",
        "histogram",
        "s",
        "Time from the beginning of a batch to its end; of commands, to their commit.",
        ("batch",),
        lambda s: {each.name: each.seconds for each in s.batchers},
    ),
    Metric(
        "jobledger.store.errors",
        "counter",
        "{batch}",
        "Batches of writes that failed, by kind of error. A batch that succeeded when it was "
        "retried at once is not counted.",
        ("kind",),
        lambda s: s.ledger.store_errors,
    ),
    Metric(
        "jobledger.store.connections",
        "gauge",
        "{connection}",
        "Connections to the database that are in use.",
        ("pool",),
        lambda s: {pool: used for pool, (used, _) in s.connections().items()},
    ),
    Metric(
        "jobledger.store.connections.max",
        "gauge",
        "{connection}",
        "Connections to the database that may be in use.",
        ("pool",),
        lambda s: {pool: most for pool, (_, most) in s.connections().items()},
    ),
    Metric(
        "jobledger.feed.seq",
        "gauge",
        "",
        "Newest sequence number of the feed that this server has seen. Its rate is the changes "
        "per second of all servers.",
        (),
        lambda s: s.hub.seq,
    ),
    Metric(
        "jobledger.feed.changes",
        "counter",
        "{change}",
        "Changes that this server has handed to its watches: from its own `commit`, or read from "
        "the `table`, where other servers' changes are.",
        ("source",),
        lambda s: s.hub.delivered,
    ),
    Metric(
        "jobledger.output.pieces",
        "counter",
        "{piece}",
        "Pieces of output that this server has handed to its watches: from its own `commit`, or "
        "read from the `table`, where those of other servers are.",
        ("source",),
        lambda s: s.outputs.delivered,
    ),
    Metric(
        "jobledger.output.appended",
        "counter",
        "By",
        "Output that workers have appended at this server.",
        (),
        lambda s: s.ledger.rates.appended,
    ),
    Metric(
        "jobledger.output.buffered",
        "gauge",
        "By",
        "Output that this server keeps in memory for its watches.",
        (),
        lambda s: s.outputs.buffered_bytes,
    ),
    Metric(
        "jobledger.feed.lag",
        "gauge",
        "s",
        "Time for which this server may not have delivered what other servers committed. It is "
        "below a second while the database answers.",
        (),
        lambda s: s.tail.lag,
    ),
    Metric(
        "jobledger.feed.holes",
        "counter",
        "",
        "Sequence numbers without a change. Each is a bug and is logged, and every watch of this "
        "server starts again: please report it.",
        (),
        lambda s: s.tail.holes,
    ),
    Metric(
        "jobledger.watches",
        "gauge",
        "{watch}",
        "Open watches, of one `job` or of many `jobs`.",
        ("of",),
        lambda s: {"job": s.hub.watches - s.hub.feed_watches, "jobs": s.hub.feed_watches},
    ),
    Metric(
        "jobledger.claims.waiting",
        "gauge",
        "{claim}",
        "Claims that wait for a job to become claimable, those of Work streams included.",
        (),
        lambda s: s.waiters.waiting_claims,
    ),
    Metric(
        "jobledger.limit.used",
        "gauge",
        "",
        "How much of a limit is in use, by all callers.",
        ("limit",),
        lambda s: {each.limit: each.held for each in s.admissions},
    ),
    Metric(
        "jobledger.limit.max",
        "gauge",
        "",
        "The limit for all callers together.",
        ("limit",),
        lambda s: {each.limit: each.total for each in s.admissions},
    ),
    Metric(
        "jobledger.limit.refused",
        "counter",
        "",
        "Refusals because one `caller`, or all callers of the `server`, had reached a limit.",
        ("limit", "scope"),
        _refused,
    ),
    Metric(
        "jobledger.reloads.failing",
        "gauge",
        "",
        "How many of them have changed and cannot be used: the `certificate` or the CAs besides "
        "it, the `access_file`, or the key sets of issuers (`issuer_keys`). What they were before "
        "stays in use.",
        ("of",),
        _failing_reloads,
    ),
    Metric(
        "jobledger.certificate.expiration_timestamp",
        "gauge",
        "s",
        "When a certificate in use expires, in seconds since 1970: of the `server` the first of "
        "its chain, of `client_ca` the last of the CAs.",
        ("certificate",),
        lambda s: {} if s.certificate is None else s.certificate.expirations,
    ),
    Metric(
        "jobledger.log.lines_lost",
        "counter",
        "{line}",
        "Log lines that were lost because standard error did not accept them in time.",
        (),
        lambda _: lines_lost(),
    ),
)
