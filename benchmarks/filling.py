"""Fills a database by plain SQL, before anything serves it: jobs as they stand after some time."""

import asyncio
import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import asyncpg
from messages import USER, create_requests
from processes import BenchmarkError
from subjects import Database

_HOUR = 3600 * 1_000_000

# Microseconds from the time of filling, `:now`; all jobs are a millisecond apart in `id` and
# `create_time`, the newest made just then. What is active is so for at least an hour more.
_RUNNING = ("'PROCESSING'", "1", ":now", "NULL", f":now + {_HOUR} + n * 1000", "NULL", "2", "40")
_STATES = {
    "QUEUED": ("'QUEUED'", "0", "NULL", "NULL", "NULL", f":now + {7 * 24 * _HOUR}", "1", "0"),
    "PROCESSING": _RUNNING,
    "COMPLETED": ("'COMPLETED'", "1", ":now", ":now", "NULL", "NULL", "3", "100"),
    "PARTIAL": ("'PARTIAL'", "1", ":now", ":now", "NULL", "NULL", "3", "100"),
    "FAILED": ("'FAILED'", "1", ":now", ":now", "NULL", "NULL", "3", "40"),
}

_INSERT = """
INSERT INTO jobs (
  id, user_id, job_type, status, progress, progress_message, parameters, result,
  error_reason, error_message, labels, attempt, max_attempts, releases, worker_id, request_id,
  create_time, start_time, update_time, complete_time, lease_duration, lease_expire_time,
  queue_timeout, queue_expire_time, cancel_reason, deadline, version, change_seq)
SELECT {id}, '{user}', '{job_type}', {status}, {progress}, '', :parameters, NULL,
  {reason}, {reason}, '{labels}', {attempt}, 1, 0, {worker}, 'filled-' || n,
  :now - (:last - n) * 1000, {started}, :now, {ended}, {lease}, {lease_end},
  {week}, {queue_end}, '', coalesce({lease_end}, {queue_end}, CAST(NULL AS bigint)), {version}, n
FROM {numbers}
"""

_SQLITE = {
    "numbers": "(WITH RECURSIVE numbers(n) AS (SELECT :first UNION ALL "
    "SELECT n + 1 FROM numbers WHERE n < :until) SELECT n FROM numbers)",
    "id": "printf('%08x-%04x-7000-8000-%012x', {ms} >> 16, {ms} & 65535, n)",
}
_POSTGRESQL = {
    "numbers": "generate_series(:first, :until) AS numbers(n)",
    "id": "lpad(to_hex({ms} >> 16), 8, '0') || '-' || lpad(to_hex({ms} & 65535), 4, '0')"
    " || '-7000-8000-' || lpad(to_hex(n), 12, '0')",
}
_MILLISECOND = "(:now / 1000 - :last + n)"


def fill_all(databases: Sequence[Database], counts: Mapping[str, int], job_type: str) -> None:
    """Make so many jobs of each status, the first named the oldest, in every database at once.

    Raises BenchmarkError.
    """
    with ThreadPoolExecutor() as pool:
        fillings = [pool.submit(_fill, database, counts, job_type) for database in databases]
    for filling in fillings:
        if (error := filling.exception()) is not None:
            raise BenchmarkError(f"a database cannot be filled: {error}") from error


def _fill(database: Database, counts: Mapping[str, int], job_type: str) -> None:
    if database.name == "SQLite":
        _fill_sqlite(database.url.removeprefix("sqlite:///"), counts, job_type)
    else:
        asyncio.run(_fill_postgresql(database.url, counts, job_type))


def _fill_sqlite(file: str, counts: Mapping[str, int], job_type: str) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=OFF")  # of this connection alone
        connection.execute("PRAGMA cache_size=-200000")
        now = time.time_ns() // 1000  # the machine's clock, as the server takes it
        for status, span in _spans(counts, now):
            connection.execute(_insert(status, job_type, _SQLITE), span)
        connection.execute("UPDATE feed SET seq = ?", (sum(counts.values()),))
        connection.execute("ANALYZE")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


async def _fill_postgresql(url: str, counts: Mapping[str, int], job_type: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET synchronous_commit = off")  # of this connection alone
        now = await connection.fetchval(
            "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
        )
        for status, span in _spans(counts, now):
            statement = _insert(status, job_type, _POSTGRESQL)
            for number, (name, value) in enumerate(span.items(), start=1):
                kind = "bytea" if isinstance(value, bytes) else "bigint"
                statement = statement.replace(f":{name}", f"${number}::{kind}")
            await connection.execute(statement, *span.values())
        await connection.execute("UPDATE feed SET seq = $1", sum(counts.values()))
        await connection.execute("VACUUM (ANALYZE) jobs")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


def _spans(counts: Mapping[str, int], now: int) -> list[tuple[str, dict[str, Any]]]:
    parameters = next(create_requests()).parameters.SerializeToString()
    last = sum(counts.values())
    spans = []
    first = 1
    for status, count in counts.items():
        until = first + count - 1
        shared = {"now": now, "last": last, "parameters": parameters}
        spans.append((status, {"first": first, "until": until, **shared}))
        first += count
    return spans


def _insert(status: str, job_type: str, dialect: Mapping[str, str]) -> str:
    name, attempt, started, ended, lease_end, queue_end, version, progress = _STATES[status]
    return _INSERT.format(
        numbers=dialect["numbers"],
        id=dialect["id"].format(ms=_MILLISECOND),
        user=USER,
        job_type=job_type,
        status=name,
        progress=progress,
        reason="'UNKNOWN'" if status == "FAILED" else "NULL",
        labels=json.dumps(dict(next(create_requests()).labels)),
        attempt=attempt,
        worker="''" if status == "QUEUED" else "'worker-1'",
        started=started,
        ended=ended,
        lease="NULL" if status == "QUEUED" else str(_HOUR),
        lease_end=lease_end,
        week=7 * 24 * _HOUR,
        queue_end=queue_end,
        version=version,
    )
