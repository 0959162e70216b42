"""asyncpg: the driver that a batch's statements go to directly."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import asyncpg

from jobledger_server.database.postgresql_connection import PostgresqlConnection
from jobledger_server.domain.job import Instant, JobId
from jobledger_server.domain.queues import QueueName
from jobledger_server.sql.counters import QUEUES
from jobledger_server.sql.driver import Batch, Writes, Writing
from jobledger_server.sql.job_cache import WriteId
from jobledger_server.sql.postgresql.batch_statement import (
    FEED_LOCKED,
    LOCK_FEED,
    OUTDATED,
    batch_statement,
)
from jobledger_server.sql.rows import Row, queue_of_row
from jobledger_server.sql.tables import jobs, outputs
from jobledger_server.sql.write_statements import Insertion, Update
from jobledger_server.store import Outdated

COPY_FROM_ROWS = 16
"""From this number of new jobs on they are copied. A copy is a round trip of its own, but each
job costs less."""

CLOCK = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"

# `xmin` is the transaction that wrote this version of the row: 32 bits of its id.
_WRITERS = f"SELECT id, xmin::text, {CLOCK} FROM jobs WHERE id = ANY($1)"  # noqa: S608
_LOCK = " ORDER BY id FOR UPDATE"

# If the server disconnects between two messages, the driver's protocol state is wrong: it
# reports that another operation is in progress, namely an earlier one that never ended.
PROTOCOL_ERRORS: tuple[type[Exception], ...] = (asyncpg.InternalClientError,)


APPENDED_MEANWHILE = asyncpg.UniqueViolationError, asyncpg.NotNullViolationError
"""What a row of output violates if another one has appended to the stream since it was loaded."""


class PostgresqlDriver:
    """See `driver.Driver`."""

    def __init__(self, connection: PostgresqlConnection) -> None:
        self.committing = False
        self._connection = connection
        self._may_begin = False
        self._begun = False
        self._unlocked: Mapping[JobId, WriteId] = {}  # found unchanged, and to be so when locked
        self.time: Instant | None = None

    def is_broken_by(self, error: BaseException) -> bool:
        return self._connection.is_closed() or isinstance(error, PROTOCOL_ERRORS)

    def terminate(self) -> None:
        self._connection.terminate()

    async def interrupt(self) -> None:
        """Do nothing: `statement_timeout` ends the statement."""

    async def begin(self) -> None:
        # Not sent yet: a batch that reads the time and appends needs only one statement, which is
        # a transaction by itself.
        self._may_begin = True

    async def now(self) -> Instant:
        if self.time is None:
            self.time = Instant(await self._connection.fetchval(f"SELECT {CLOCK}"))
        return self.time

    async def fetch(self, statement: str, values: Sequence[Any]) -> Sequence[Sequence[Any]]:
        await self._begin()
        return await self._connection.fetch(statement, *values)

    async def unchanged(
        self, write_ids: Mapping[JobId, WriteId], *, look: bool = True
    ) -> Collection[JobId]:
        if self._begun:
            return await self._same(write_ids, _LOCK)
        # Most batches go on with the statement that writes them: it locks the jobs, and needs no
        # transaction around it.
        same = await self._same(write_ids) if look else write_ids
        if len(same) == len(write_ids):
            self._unlocked = write_ids
            return same
        # All are read again, with their locks. They may have to be waited for, so the time, too.
        self.time = None
        return ()

    async def _same(self, write_ids: Mapping[JobId, WriteId], lock: str = "") -> Collection[JobId]:
        found = await self._connection.fetch(_WRITERS + lock, list(write_ids))
        if found and self.time is None:  # so that it is no statement of its own
            self.time = Instant(found[0][2])
        return [job_id for job_id, write_id, _ in found if write_id == write_ids[job_id]]

    async def append(self, batch: Batch, *, last: bool) -> tuple[int, WriteId]:
        # The parts of one statement have no order.
        if batch.new >= COPY_FROM_ROWS or (batch.new and batch.updates_first) or batch.moves:
            seq, writer = await self._append_in_steps(batch)
        else:
            if last and not self._begun:
                self.committing = True
            else:
                await self._begin()
            feed = LOCK_FEED if batch.locks_feed else FEED_LOCKED
            writes = [*batch.counts(), *batch.writes(after=0)]
            unlocked = None if self._begun else self._unlocked
            seq, writer = await self._write(
                feed, batch.count, writes, batch.config_version, unlocked=unlocked
            )
        # A row keeps only 32 bits of the transaction's id: see `unchanged`.
        return seq, str(writer & 0xFFFF_FFFF)

    async def _write(
        self,
        counter: str,
        number: int,
        writes: Writes,
        config: int | None = None,
        *,
        queue_ids: bool = False,
        unlocked: Mapping[JobId, WriteId] | None = None,
    ) -> tuple[Any, ...]:
        """Write rows by one statement; return its row. See `batch_statement`."""
        values: list[Any]
        # One job changes its queue and its level.
        if all(len(rows) == (2 if statement is QUEUES else 1) for statement, rows in writes):
            values = [value for _, rows in writes for row in rows for value in row]
            counts = tuple((statement, len(rows)) for statement, rows in writes)
        else:
            values = [column for _, rows in writes for column in zip(*rows, strict=True)]
            counts = tuple((statement, 0) for statement, _ in writes)
        if unlocked:
            values = [list(unlocked), list(unlocked.values()), *values]
        statement = batch_statement(counter, counts, queue_ids=queue_ids, guarded=bool(unlocked))
        updates = sum(len(rows) for statement, rows in writes if isinstance(statement, Update))
        run = self._connection.fetch_committed if self.committing else self._connection.fetch
        try:
            return tuple((await run(statement, number, updates, config, *values))[0])
        except APPENDED_MEANWHILE as error:
            if error.table_name == outputs.name:
                raise Outdated from error
            raise
        except asyncpg.PostgresError as error:
            if error.sqlstate == OUTDATED:
                raise Outdated from error
            raise

    async def _append_in_steps(self, batch: Batch) -> tuple[int, int]:
        """Lock the feed first: a copy cannot add to values, nor look the ids of queues up.

        A job that is moved gets the id of its queue from the table, so its row is written after
        those of the queues. A copy of new jobs then is, too.
        """
        await self._begin()
        copies = batch.new >= COPY_FROM_ROWS or batch.moves
        updates_first = batch.updates_first and not batch.moves
        first: list[Writing] = []
        rest: list[Writing] = []
        (first if copies else rest).extend(batch.counts())
        if updates_first:
            writes = batch.writes(after=0)
            first += [each for each in writes if not isinstance(each[0], Insertion)]
        seq, writer, *queues = await self._write(
            LOCK_FEED,
            batch.count,
            first,
            batch.config_version,
            queue_ids=copies and batch.new > 0,
        )
        writes = batch.writes(after=seq - batch.count)
        if batch.moves:
            moves = [each for each in writes if not isinstance(each[0], Insertion)]
            await self._write(FEED_LOCKED, seq, moves)
        for writing, rows in writes:
            if not isinstance(writing, Insertion):
                if not (updates_first or batch.moves):
                    rest.append((writing, rows))
            elif copies and writing.table is jobs:
                # Before the others, which may refer to these jobs.
                await self._copy_jobs(writing.columns, rows, *queues)
            else:
                rest.append((writing, rows))
        if rest:
            await self._write(FEED_LOCKED, seq, rest)
        return seq, writer

    async def _copy_jobs(
        self, columns: Sequence[str], rows: Sequence[Row], queues: Sequence[Any]
    ) -> None:
        ids = {
            QueueName(job_type, priority, tenant): id_ for id_, tenant, job_type, priority in queues
        }
        await self._connection.copy_records_to_table(
            jobs.name,
            columns=(*columns, "queue_id"),
            records=[(*row, ids[queue_of_row(row)]) for row in rows],
        )

    async def _begin(self) -> None:
        if self._may_begin and not self._begun:
            await self._connection.execute("BEGIN")
            self._begun = True
            unlocked = self._unlocked
            if unlocked and len(await self._same(unlocked, _LOCK)) < len(unlocked):
                raise Outdated

    async def commit(self) -> None:
        if self._begun:
            self.committing = True
            await self._connection.execute("COMMIT")

    async def rollback(self) -> None:
        if self._begun:
            await self._connection.execute("ROLLBACK")
