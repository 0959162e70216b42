"""Many jobs at once, written to the database by hand: for tests on large tables."""

import asyncio
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Table, text

from jobledger_server.database.url import parse_url
from jobledger_server.domain.job import Phase
from jobledger_server.domain.queues import rule_name
from jobledger_server.sql.database import Database, open_database
from jobledger_server.sql.tables import PHASES, QUEUE_NAME, jobs, tenant

FAR = 4_000_000_000_000_000
"""A deadline that no test lives to see."""

_CASES = ", ".join(f"count(CASE WHEN phase = {phase:d} THEN 1 END)" for phase in Phase)
_CLAIMABLE = "CASE WHEN min(phase) = 0 THEN 1 ELSE 0 END"
_QUEUE = f"job_type, priority, {tenant()}"
_ACTIVE = "FROM jobs WHERE phase IS NOT NULL"
_COUNT = (
    "DELETE FROM queues",
    (
        "INSERT INTO queues (id, job_type, priority, fairness_key, vtime, claimed, claimable,"
        f" {', '.join(PHASES)}) SELECT queue_id, {_QUEUE}, 0, 0, {_CLAIMABLE}, {_CASES}"
        f" {_ACTIVE} GROUP BY queue_id, {_QUEUE}"
    ),
    (
        "INSERT INTO queues (job_type, priority, fairness_key, vtime, claimed, claimable,"
        f" {', '.join(PHASES)}) SELECT job_type, priority, '', 0, 0, 0, {_CASES}"
        f" {_ACTIVE} GROUP BY job_type, priority"
    ),
)
"""Counts the jobs again. No queue has had a turn then."""


def blanks(table: Table, given: Iterable[str]) -> dict[str, Any]:
    """Return a blank value, as 0 or an empty text, for each other column that has to have one."""
    return {
        column.name: column.type.python_type()
        for column in table.columns
        if not column.nullable and column.server_default is None and column.name not in given
    }


_BEGUN = {
    "id": "''",
    "labels": "'{}'",
    "status": "'QUEUED'",
    "version": "1",
    "queue_timeout": "1",
    "max_attempts": "1",
    "initial_backoff": "1",
    "max_backoff": "1",
    "backoff_multiplier": "1",
}

PLAIN = {name: repr(blank).upper() for name, blank in blanks(jobs, _BEGUN).items()} | _BEGUN
"""What a job has in most of its columns before it is started, in SQL."""


def seeded_id(number: int) -> str:
    """Return the id of the job of this number: greater than that of a job that a server makes."""
    return f"ffffffff-0000-7000-8000-{number:012d}"


async def seed(
    database: Database,
    count: int,
    *,
    user_id: str = "ada",
    job_type: str = "many",
    schedule_time: int | None = None,
    concurrency_key: str = "",
    blocked: bool = False,
    first: int = 1,
) -> None:
    """Write queued jobs with their counters, and let the database take note of them.

    Args:
        database: The database.
        count: How many jobs.
        user_id: Their owner.
        job_type: Their type.
        schedule_time: When they are due; None if they are ready.
        concurrency_key: Their concurrency key, which no other job has.
        blocked: Whether they are blocked.
        first: The number of the first one.
    """
    due = "NULL" if schedule_time is None else str(schedule_time)
    phase = Phase.BLOCKED if blocked else Phase.READY if schedule_time is None else Phase.SCHEDULED
    name = f"'{user_id}'", f"'{job_type}'", "0"  # in the order of QUEUE_NAME
    queue = f"SELECT id FROM queues WHERE ({', '.join(QUEUE_NAME)}) = ({', '.join(name)})"
    last = first + count - 1
    if database.dialect.name == "sqlite":
        rows = f"SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {last}"
        series = f"WITH RECURSIVE n(i) AS ({rows})"
        job_id = "printf('ffffffff-0000-7000-8000-%012d', i)"
    else:
        series = f"WITH n(i) AS (SELECT generate_series({first}, {last}))"
        job_id = "('ffffffff-0000-7000-8000-' || lpad(i::text, 12, '0'))::uuid"
    head = f"(SELECT coalesce(max(seq), 0) - {first - 1} AS seq FROM changes)"
    columns = {
        **PLAIN,
        "id": job_id,
        "user_id": f"'{user_id}'",
        "job_type": f"'{job_type}'",
        "phase": f"{phase:d}",
        "queue_id": f"({queue})",
        "concurrency_key": ":key",
        "create_time": "i",
        "update_time": "i",
        "queue_expire_time": f"{FAR}",
        "deadline": f"{FAR}",
        "change_seq": "head.seq + i",
        "schedule_time": due,
    }
    insert_queue = (
        f"INSERT INTO queues ({', '.join(QUEUE_NAME)}, vtime, claimed, claimable,"
        f" {', '.join(PHASES)}) VALUES ({', '.join(name)}, 0, 0, 0{', 0' * len(PHASES)})"
        f" ON CONFLICT ({', '.join(QUEUE_NAME)}) DO NOTHING"
    )
    insert_jobs = (
        f"INSERT INTO jobs ({', '.join(columns)}) {series} SELECT {', '.join(columns.values())}"
        f" FROM n, {head} AS head"
    )
    insert_changes = (
        "INSERT INTO changes (seq, job_id, user_id) SELECT change_seq, id, user_id FROM jobs"
        " WHERE change_seq > (SELECT coalesce(max(seq), 0) FROM changes)"
    )
    async with database.writer.begin() as connection:
        await connection.execute(text(insert_queue))
        await connection.execute(text(insert_jobs), {"key": concurrency_key})
        for statement in (insert_changes, *_COUNT):
            await connection.execute(text(statement))
        if concurrency_key:
            insert_key = (
                "INSERT INTO limit_keys (key, name, running, blocked, recheck)"
                f" VALUES (:key, :name, 0, {count * blocked}, 0)"
            )
            key = {"key": concurrency_key, "name": rule_name(concurrency_key)}
            await connection.execute(text(insert_key), key)
    async with database.writer.begin() as connection:
        await connection.execute(text("ANALYZE"))


def seeded(url: str, count: int, **fields: object) -> None:
    """Write queued jobs to a database that no server uses just now."""

    async def run() -> None:
        database = open_database(parse_url(url), seconds=None)
        await seed(database, count, **fields)
        await database.close()

    asyncio.run(run())
