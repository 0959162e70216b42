"""Many jobs at once, written to the database by hand: for tests on large tables."""

import asyncio

from sqlalchemy import text

from jobledger_server.sql.database import Database, open_database
from jobledger_server.sql.database_url import parse_url

FAR = 4_000_000_000_000_000
"""A deadline that no test lives to see."""


def seeded_id(number: int) -> str:
    """Return the id of the job of this number: greater than that of a job that a server makes."""
    return f"ffffffff-0000-7000-8000-{number:012d}"


async def seed(
    database: Database,
    count: int,
    *,
    user_id: str = "ada",
    job_type: str = "many",
    due_time: int | None = None,
) -> None:
    """Write queued jobs, and let the database take note of them. Once for each database."""
    due = "NULL" if due_time is None else str(due_time)
    if database.dialect.name == "sqlite":
        series = (
            f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"
        )
        job_id = "printf('ffffffff-0000-7000-8000-%012d', i)"
    else:
        series = f"WITH n(i) AS (SELECT generate_series(1, {count}))"
        job_id = "('ffffffff-0000-7000-8000-' || lpad(i::text, 12, '0'))::uuid"
    head = "(SELECT coalesce(max(seq), 0) AS seq FROM changes)"
    insert_jobs = (
        "INSERT INTO jobs (id, user_id, job_type, status, progress, progress_message, labels,"
        " attempt, max_attempts, initial_backoff, max_backoff, backoff_multiplier, releases,"
        " quick_releases, worker_id, request_id, traceparent, create_time, update_time,"
        " queue_timeout, queue_expire_time, cancel_reason, deadline, version, change_seq,"
        " report_number, parameters_bytes, checkpoint_bytes, outcome_bytes, schedule_time,"
        " due_time, asset_count, asset_bytes) "
        f"{series} SELECT {job_id}, '{user_id}', '{job_type}', 'QUEUED', 0, '', '{{}}', 0, 1, 1,"
        f" 1, 1, 0, 0, '', '', '', i, i, 1, {FAR}, '', {FAR}, 1, head.seq + i, 0,"
        f" 0, 0, 0, {due}, {due}, 0, 0"
        f" FROM n, {head} AS head"
    )
    insert_changes = (
        "INSERT INTO changes (seq, job_id, user_id) SELECT change_seq, id, user_id FROM jobs"
        f" WHERE change_seq > {head}"
    )
    async with database.writer.begin() as connection:
        await connection.execute(text(insert_jobs))
        await connection.execute(text(insert_changes))
    async with database.writer.begin() as connection:
        await connection.execute(text("ANALYZE"))


def seeded(url: str, count: int, **fields: object) -> None:
    """Write queued jobs to a database that no server uses just now."""

    async def run() -> None:
        database = open_database(parse_url(url), unlimited=True)
        await seed(database, count, **fields)
        await database.close()

    asyncio.run(run())
