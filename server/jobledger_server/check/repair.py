"""Mends the feed, where the rows of a job in it are missing or another job's."""

import uuid
from collections.abc import Iterator
from itertools import count
from typing import Any

from sqlalchemy import bindparam, delete, insert, select, text, update

from jobledger_server.check.invariants import FEED_RULES, UNKNOWN_CHANGES
from jobledger_server.domain.state_machine import VERSION_OF_START
from jobledger_server.sql.database import Database
from jobledger_server.sql.feed_statements import feed_head
from jobledger_server.sql.history import SEQ_COLUMNS
from jobledger_server.sql.store_connections import LOCK_FEED
from jobledger_server.sql.tables import changes, feed, jobs


async def repair_feed(database: Database) -> int:
    """Make those rows of the feed again that are wrong, in one transaction.

    The jobs concerned come last in the feed, each with its start, its latest change and its
    deletion. Some watches did not receive these, so the feed gets another epoch: every watch lists
    its jobs again. Nothing but the feed is mended.

    Args:
        database: One without time limits, which no server uses meanwhile.

    Returns:
        How many jobs were concerned.
    """
    async with database.writer.connect() as connection, connection.begin():
        await connection.execute(LOCK_FEED)
        unknown = (await connection.execute(text(UNKNOWN_CHANGES))).all()
        wrong = set()
        for statement in FEED_RULES.values():
            wrong |= {row.id for row in await connection.execute(text(statement))}
        if not (wrong or unknown):
            return 0
        seqs = [{"key": row.seq} for row in unknown]
        if seqs:
            await connection.execute(delete(changes).where(changes.c.seq == bindparam("key")), seqs)
        head = (await connection.execute(select(*feed_head()))).one().seq
        numbers = count(head + 1)
        for job_id in sorted(wrong):
            # Their type reads ids of both databases as text.
            own = jobs.c.id == bindparam("key", str(job_id), type_=jobs.c.id.type)
            job = (await connection.execute(select(jobs).where(own))).one()
            new = dict(_numbered(job, numbers))
            await connection.execute(delete(changes).where(changes.c.job_id == job.id))
            await connection.execute(update(jobs).where(own).values(**new))
            rows = [
                {"seq": seq, "job_id": job.id, "user_id": job.user_id}
                for seq in sorted(set(new.values()))
            ]
            await connection.execute(insert(changes), rows)
        await connection.execute(update(feed).values(epoch=uuid.uuid4().hex))
    return len(wrong) + len({row.job_id for row in unknown} - wrong)


def _numbered(job: Any, numbers: Iterator[int]) -> Iterator[tuple[str, int]]:
    """Yield a new sequence number for each of SEQ_COLUMNS that a job has."""
    start, change, deletion = SEQ_COLUMNS
    latest = None
    if job.start_seq is not None:
        latest = next(numbers)
        yield start, latest
    yield (
        change,
        latest if latest and job.version == VERSION_OF_START + job.updates else next(numbers),
    )
    if job.delete_seq is not None:
        yield deletion, next(numbers)
