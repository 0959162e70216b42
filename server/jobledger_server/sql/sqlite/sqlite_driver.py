"""aiosqlite: the driver that a batch's statements go to directly."""

import sqlite3
import time
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain, starmap
from typing import Any, NamedTuple

import aiosqlite

from jobledger_server.database.sqlite_connection import SEVERAL, Run
from jobledger_server.domain.job import Instant, JobId
from jobledger_server.sql.driver import Batch
from jobledger_server.sql.job_cache import WriteId
from jobledger_server.sql.rows import Row
from jobledger_server.sql.tables import outputs
from jobledger_server.sql.write_statements import Insertion, Update, WriteStatement
from jobledger_server.store import Outdated

VALUES_PER_STATEMENT = 16_384
"""Values that one statement writes at most. SQLite takes 32,766."""

# A transaction that reads first and then writes fails at once if another process wrote in
# between. So it takes the lock when it begins.
BEGIN = "BEGIN IMMEDIATE"

_FEED = (
    "SELECT max(compacted_seq, coalesce((SELECT max(seq) FROM changes), 0)), "
    "(SELECT data_version FROM pragma_data_version), config_version FROM feed"
)


def machine_clock() -> int:
    """Return this machine's time: SQLite has no server with a clock of its own."""
    return time.time_ns() // 1000


class _Feed(NamedTuple):
    """The newest sequence number, the data's version, and that of what operators set."""

    seq: int
    version: int
    config: int


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
    """See `driver.Driver`. Each call is one round trip to the connection's thread at most."""

    def __init__(self, connection: aiosqlite.Connection, generation: WriteGeneration) -> None:
        self.committing = False
        self._connection = connection
        self._generation = generation
        self._feed: _Feed | None = None
        self.time: Instant | None = None

    def is_broken_by(self, error: BaseException) -> bool:  # noqa: ARG002
        return False  # a file does not disconnect

    def terminate(self) -> None: ...

    async def interrupt(self) -> None:
        await self._connection.interrupt()

    async def begin(self) -> None:
        changes = self._connection.total_changes
        # The feed too: it locks the file, so nothing else writes from now on.
        ((seq, version, config),) = await self._run([Run(BEGIN), Run(_FEED)])
        self._feed = _Feed(seq, version, config)
        self._generation.check(self._connection, version, changes)

    async def now(self) -> Instant:
        if self.time is None:
            self.time = Instant(machine_clock())
        return self.time

    async def fetch(self, statement: str, values: Sequence[Any]) -> Sequence[Sequence[Any]]:
        return list(await self._connection.execute_fetchall(statement, values))

    async def unchanged(
        self,
        write_ids: Mapping[JobId, WriteId],
        *,
        look: bool = True,  # noqa: ARG002 - it costs nothing
    ) -> Collection[JobId]:
        generation = self._generation.number
        return [job_id for job_id, write_id in write_ids.items() if write_id == generation]

    async def append(self, batch: Batch, *, last: bool) -> tuple[int, WriteId]:
        assert self._feed is not None  # noqa: S101
        before, version, config = self._feed
        # As on PostgreSQL: a batch that changes nothing depends on no setting.
        if batch.locks_feed and batch.config_version not in (None, config):
            raise Outdated
        # Up to the first that fails: after some errors (disk full) SQLite has rolled back by
        # itself, and a further statement would be a transaction of its own. The rows are made in
        # the connection's thread, so that many of them do not block the event loop.
        self.committing = last
        commit = [Run("COMMIT")] if last else []
        try:
            await self._run(chain(starmap(_run, _made(batch, before)), commit))
        except sqlite3.IntegrityError as error:
            if f"failed: {outputs.name}.start" in str(error):  # appended to by another process
                raise Outdated from error
            raise
        seq = before + batch.count
        self._feed = None if last else _Feed(seq, version, config)
        self._generation.expect(self._connection, version, self._connection.total_changes)
        return seq, self._generation.number

    async def _run(self, runs: Iterable[Run]) -> Sequence[Sequence[Any]]:
        return list(await self._connection.execute_fetchall(SEVERAL, runs))

    async def commit(self) -> None:
        if self._feed is not None:
            self.committing = True
            await self._connection.commit()

    async def rollback(self) -> None:
        # If the commit failed, it may have been made even so.
        self._generation.invalidate()
        await self._connection.rollback()


def _made(batch: Batch, before: int) -> Iterator[tuple[WriteStatement, Sequence[Row]]]:
    """Make the rows when they are asked for."""
    yield from batch.counts()
    yield from batch.writes(after=before)


@cache
def text_of(statement: WriteStatement, rows: int) -> str:
    """Return the text of a statement that writes so many rows.

    Rows of NULLs only are padding: they fill a statement that has more rows than are to be written.
    """
    names = list(statement.given)
    row = f"({', '.join('?' * len(names))})"
    given = f"WITH given ({', '.join(names)}) AS (VALUES {', '.join([row] * rows)})"
    # Not at the beginning: the driver counts what an UPDATE has updated by the first word.
    source = f"({given} SELECT * FROM given) AS new"  # noqa: S608
    if isinstance(statement, Insertion):
        source += f" WHERE new.{names[0]} IS NOT NULL"
    return statement.text(source, lambda column: f"new.{column.name}")


def _run(statement: WriteStatement, rows: Sequence[Row]) -> Run:
    """Return how the statement writes these rows.

    The driver releases the interpreter lock for each statement, and must wait for the event loop to
    get it back. A statement for each row would do that too often.
    """
    updates = len(rows) if isinstance(statement, Update) else None
    # Sizes are powers of two, so that there are few texts for the driver to prepare.
    most = 1 << (VALUES_PER_STATEMENT // len(rows[0])).bit_length() - 1
    if len(rows) > most:
        parts = [_values(rows[start : start + most], most) for start in range(0, len(rows), most)]
        return Run(text_of(statement, most), parts, often=True, updates=updates)
    size = 1 << (len(rows) - 1).bit_length()
    return Run(text_of(statement, size), _values(rows, size), updates=updates)


def _values(rows: Sequence[Row], size: int) -> list[Any]:
    """Return the values of the rows, padded with NULLs to `size` rows."""
    missing = (size - len(rows)) * len(rows[0])
    return [*chain.from_iterable(rows), *[None] * missing]
