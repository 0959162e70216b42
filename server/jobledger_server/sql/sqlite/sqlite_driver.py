"""aiosqlite: the driver that a batch's statements go to directly."""

import time
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain
from typing import Any

import aiosqlite

from jobledger_server.domain.job import Instant, JobId
from jobledger_server.sql.driver import Writes, WriteStatement
from jobledger_server.sql.job_cache import WriteId
from jobledger_server.sql.rows import Row

ROWS_PER_STATEMENT = 64
"""Rows that one statement writes at most; a power of two."""

NARROW, NARROW_ROWS_PER_STATEMENT = 2, 1024
"""The same for rows of up to two values, such as those of renewed leases."""

# A transaction that reads first and then writes fails at once if another process wrote in
# between. So it takes the lock when it begins.
BEGIN = "BEGIN IMMEDIATE"

_FEED = (
    "SELECT max(compacted_seq, coalesce((SELECT max(seq) FROM changes), 0)), "
    "(SELECT data_version FROM pragma_data_version) FROM feed"
)


def machine_clock() -> int:
    """Return this machine's time: SQLite has no server with a clock of its own."""
    return time.time_ns() // 1000


class WriteGeneration:
    """A number that grows when anything but a batch has written to the file.

    Commits of other connections change `data_version`. Whatever else the writing connection
    wrote, for retention and promotion, is counted in its `total_changes`.
    """

    def __init__(self) -> None:
        self.number = 0
        # A weak reference: the connection is closed when its owner drops it.
        self._expected: tuple[weakref.ref[aiosqlite.Connection], int, int] | None = None

    def check(self, connection: aiosqlite.Connection, version: int, changes: int) -> None:
        """Start a new generation unless a transaction finds what the last batch left."""
        if self._expected != (weakref.ref(connection), version, changes):
            self.number += 1

    def invalidate(self) -> None:
        """Start a new generation with the next transaction, whatever it finds."""
        self._expected = None

    def expect(self, connection: aiosqlite.Connection, version: int, changes: int) -> None:
        """Record what the next transaction finds if nothing else writes."""
        self._expected = weakref.ref(connection), version, changes


class SqliteDriver:
    """See `driver.Driver`. Each call is one round trip to the connection's thread."""

    def __init__(self, connection: aiosqlite.Connection, generation: WriteGeneration) -> None:
        self.committing = False
        self._connection = connection
        self._generation = generation
        self._changes = 0
        self._feed: tuple[int, int] | None = None  # the newest number, and the data's version
        self.time: Instant | None = None

    def is_broken_by(self, error: BaseException) -> bool:  # noqa: ARG002
        return False  # a file does not disconnect

    def terminate(self) -> None: ...

    async def interrupt(self) -> None:
        await self._connection.interrupt()

    async def begin(self) -> None:
        await self._connection.execute_fetchall(BEGIN)
        self._changes = self._connection.total_changes

    async def now(self) -> Instant:
        if self.time is None:
            self.time = Instant(machine_clock())
        return self.time

    async def fetch(self, statement: str, values: Sequence[Any]) -> Sequence[Sequence[Any]]:
        return list(await self._connection.execute_fetchall(statement, values))

    async def unchanged(self, write_ids: Mapping[JobId, WriteId]) -> Collection[JobId]:
        await self._read_feed()
        generation = self._generation.number
        return [job_id for job_id, write_id in write_ids.items() if write_id == generation]

    async def append(
        self,
        count: int,
        writes: Callable[[int], Writes],
        *,
        deletions: bool,  # noqa: ARG002
        new: int,  # noqa: ARG002
        last: bool,  # noqa: ARG002
    ) -> tuple[int, WriteId]:
        before, version = await self._read_feed()
        # One after the other: after some errors (disk full) SQLite has rolled back by itself, and
        # a further statement would be a transaction of its own.
        for statement, rows in writes(before):
            await self._write(statement, rows)
        self._feed = before + count, version
        self._generation.expect(self._connection, version, self._connection.total_changes)
        return before + count, self._generation.number

    async def _read_feed(self) -> tuple[int, int]:
        """Read the feed, once in a transaction: it locks the file, so nothing else writes."""
        if self._feed is None:
            ((seq, version),) = await self._connection.execute_fetchall(_FEED)
            self._feed = seq, version
            self._generation.check(self._connection, version, self._changes)
        return self._feed

    async def _write(self, statement: WriteStatement, rows: Sequence[Row]) -> None:
        # The driver releases the interpreter lock for each statement, and must wait for the event
        # loop to get it back. A statement for each row would do that too often.
        most = NARROW_ROWS_PER_STATEMENT if len(rows[0]) <= NARROW else ROWS_PER_STATEMENT
        if len(rows) > most:
            starts = range(0, len(rows), most)
            parts = [_values(rows[start : start + most], most) for start in starts]
            await self._connection.executemany(statement(most), parts)
        else:
            # Sizes are powers of two, so that there are few texts for the driver to prepare.
            size = 1 << (len(rows) - 1).bit_length()
            await self._connection.execute_fetchall(statement(size), _values(rows, size))

    async def commit(self) -> None:
        self.committing = True
        await self._connection.commit()

    async def rollback(self) -> None:
        # If the commit failed, it may have been made even so.
        self._generation.invalidate()
        await self._connection.rollback()


def _values(rows: Sequence[Row], size: int) -> list[Any]:
    """Return the values of the rows, padded with NULLs to `size` rows."""
    missing = (size - len(rows)) * len(rows[0])
    return [*chain.from_iterable(rows), *[None] * missing]
