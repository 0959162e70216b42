"""Fills a database with jobs that wait, of few or of many tenants."""

from collections.abc import Iterator
from dataclasses import dataclass

import grpc

from benchmarks.seed import COUNT_AGAIN, columns_of
from benchmarks.targets import Database, Server
from jobledger.v1.job_service_pb2 import CreateJobRequest
from jobledger.v1.job_service_pb2_grpc import JobServiceStub

TYPE, PAUSED_TYPE = "render", "export"

ROWS = 1000
"""Tenants that one statement names."""


@dataclass(frozen=True)
class Backlog:
    """Jobs that wait.

    Attributes:
        tenants: how many tenants they are of.
        keys: how many concurrency keys half of them have; if there are any, a tenth of all jobs are
            of a type that is paused.
        full: how many of these keys are full.
    """

    tenants: int
    keys: int = 0
    full: int = 0


def fill_backlog(database: Database, jobs: int, backlog: Backlog) -> None:
    """Make that many jobs, by copying one. Raises BenchmarkError."""
    with Server(database) as server, grpc.insecure_channel(server.target) as channel:
        request = CreateJobRequest(user_id="template", job_type=TYPE)
        JobServiceStub(channel).CreateJob(request)
    statements = [
        *_tenants(database, min(backlog.tenants, jobs)),
        *_copies(database, jobs, backlog),
    ]
    if database.cluster is None:
        first = "PRAGMA journal_mode=OFF", "PRAGMA synchronous=OFF", "BEGIN"
        database.execute(*first, *statements, "COMMIT", "PRAGMA journal_mode=WAL")
    else:
        settings = "SET session_replication_role = replica", "SET synchronous_commit = off"
        database.execute(*settings, *statements, "VACUUM (ANALYZE)", "CHECKPOINT")


def _tenants(database: Database, count: int) -> Iterator[str]:
    yield "CREATE TEMPORARY TABLE names (n integer PRIMARY KEY, name text)"
    rows = [f"({n}, 'tenant-{n}')" for n in range(count)]
    for first in range(0, count, ROWS):
        yield f"INSERT INTO names VALUES {', '.join(rows[first : first + ROWS])}"
    ((priority,),) = database.fetch("SELECT priority FROM jobs")
    counts = "vtime, claimed, claimable, ready, blocked, scheduled, held"
    for job_type in (TYPE, PAUSED_TYPE):
        yield (
            f"INSERT INTO queues (job_type, priority, fairness_key, {counts})"
            f" SELECT '{job_type}', {priority}, name, 0, 0, 0, 0, 0, 0, 0 FROM names ORDER BY n"
        )
    yield (
        "CREATE TEMPORARY TABLE tenants AS SELECT n, name, ready.id AS ready, paused.id AS paused"
        f" FROM names JOIN queues AS ready ON ready.fairness_key = name"
        f" AND ready.job_type = '{TYPE}' JOIN queues AS paused ON paused.fairness_key = name"
        f" AND paused.job_type = '{PAUSED_TYPE}'"
    )
    yield "CREATE UNIQUE INDEX tenants_n ON tenants (n)"


def _copies(database: Database, jobs: int, backlog: Backlog) -> Iterator[str]:
    tenants = min(backlog.tenants, jobs)
    ((newest,),) = database.fetch("SELECT create_time / 1000 FROM jobs")
    seq = database.feed_seq()
    # Neighbours are of different tenants, and each tenant has jobs of each kind.
    paused = "(i / 7) % 10 = 0" if backlog.keys else "1 = 0"
    keyed = "(i / 3) % 2 = 0" if backlog.keys else "1 = 0"
    key = f"(i / 11) % {max(1, backlog.keys)}"
    millis = f"({int(newest) - jobs} + i)"
    if database.cluster is None:
        series = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {jobs})"
        new_id = f"printf('%08x-%04x-7000-8000-%012x', {millis} >> 16, {millis} & 65535, i)"
    else:
        series = f"WITH n(i) AS (SELECT generate_series(1, {jobs}::bigint))"
        parts = ((f"{millis} >> 16", 8), (f"{millis} & 65535", 4), ("i", 12))
        first, second, third = (f"lpad(to_hex({part}), {size}, '0')" for part, size in parts)
        new_id = f"({first} || '-' || {second} || '-7000-8000-' || {third})::uuid"
    changed = {
        "id": new_id,
        "user_id": "tenants.name",
        "job_type": f"CASE WHEN {paused} THEN '{PAUSED_TYPE}' ELSE '{TYPE}' END",
        "queue_id": f"CASE WHEN {paused} THEN tenants.paused ELSE tenants.ready END",
        "create_time": f"{millis} * 1000",
        "concurrency_key": f"CASE WHEN {keyed} THEN 'key:' || {key} ELSE '' END",
        "phase": f"CASE WHEN {keyed} AND {key} < {backlog.full} THEN 1 ELSE 0 END",
        "change_seq": f"{seq} + i",
    }
    columns = columns_of(database)["jobs"]
    values = ", ".join(changed.get(column, f"template.{column}") for column in columns)
    yield "CREATE TEMPORARY TABLE template AS SELECT * FROM jobs"
    yield (
        f"INSERT INTO jobs ({', '.join(columns)}) {series} SELECT {values} FROM n"
        f" JOIN tenants ON tenants.n = i % {tenants} CROSS JOIN template"
    )
    yield f"INSERT INTO changes SELECT change_seq, id, user_id FROM jobs WHERE change_seq > {seq}"
    yield from COUNT_AGAIN
    if backlog.keys:
        yield (
            "INSERT INTO limit_keys (key, name, running, blocked, recheck)"
            " SELECT concurrency_key, 'key', 0, count(CASE WHEN phase = 1 THEN 1 END), 0"
            " FROM jobs WHERE concurrency_key <> '' GROUP BY 1"
        )
        for number in range(backlog.keys):
            most = 0 if number < backlog.full else 1_000_000
            yield (
                "INSERT INTO limit_rules (name, max_running, pause_actor, pause_reason)"
                f" VALUES ('key:{number}', {most}, '', '')"
            )
        yield (
            "INSERT INTO paused_types (job_type, pause_time, pause_actor, pause_reason)"
            f" VALUES ('{PAUSED_TYPE}', 1, '', '')"
        )
        yield "UPDATE feed SET config_version = config_version + 1"
