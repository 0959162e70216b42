"""What the store must know of the database it is on, and what both have alike."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import URL, Column, ColumnElement, Select, Table, exc
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from jobledger_server.domain.job import Instant
from jobledger_server.sql.driver import Driver, Writing
from jobledger_server.sql.tables import CLAIMABLE


class BadDatabaseUrl(Exception):
    """The database URL cannot be used; the message says why and what to write instead."""


class Dialect(Protocol):
    """What the store must know of the database it is on."""

    name: str
    """SQLAlchemy's name for it."""

    conflicts: tuple[type[Exception], ...]
    """What the driver raises where rows contradict each other or do not fit."""

    driver_errors: tuple[type[Exception], ...]
    """What else the driver raises."""

    single_statement: Mapping[str, Any]
    """Execution options for a statement that needs no transaction around it."""

    snapshot: Mapping[str, Any]
    """Execution options for a transaction in which all statements see the same."""

    def one_of(self, column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
        """Return `column IN (list)`, the list bound as `name`: one text for any length."""

    def with_pairs(
        self,
        statement: Select[Any],
        first: ColumnElement[Any],
        second: ColumnElement[Any],
        name: str,
    ) -> Select[Any]:
        """Return the statement for the rows with `(first, second) IN (list of pairs)`.

        No two rows have the same pair. The list is bound as `name`.
        """

    def bind_list(self, name: str, values: Collection[str]) -> dict[str, Any]:
        """Return the parameters for `one_of`."""

    def bind_pairs(self, name: str, values: Collection[tuple[str, str]]) -> dict[str, Any]:
        """Return the parameters for `with_pairs`."""

    def locked(self, statement: Select[Any], *, skip: bool = False) -> Select[Any]:
        """Return the statement so that it locks its rows until the transaction ends.

        With `skip` it passes over rows that another transaction has locked.
        """

    def find_claimable(
        self, limits: Mapping[str, int], limit: int, *, lock: bool
    ) -> tuple[str, Sequence[Any]]:
        """Return the statement for `find_claimable` of the store and of its transactions.

        With its values, as the driver takes both. Its rows are those of `Claimable`. It
        takes the oldest of each type first, and of these the oldest: with an index by type
        and time that costs the same however many others wait.
        """

    def insertion(self, table: Table, columns: Sequence[str]) -> Writing:
        """Return the statement that inserts rows of these columns."""

    def change(self, table: Table, key: Column[Any], columns: Sequence[str]) -> Writing:
        """Return the statement that changes rows: each has the key of one, and the new values."""

    def driver(self, connection: Any) -> Driver:
        """Return the driver's own connection, ready for a batch."""

    close_timeout: float | None
    """How long closing all connections may take; None where nobody is at the other end."""

    database_identity: ColumnElement[str]
    """What tells the database from a copy of it, as far as it can tell itself."""

    @property
    def clock(self) -> ColumnElement[int]:
        """The database server's time, for use in a statement."""

    async def now(self, connection: AsyncConnection) -> Instant:
        """Return the database server's time."""


@dataclass(frozen=True)
class Database:
    """An engine that writes, one that reads, one that reads lists, and how to talk to them."""

    url: URL
    writer: AsyncEngine
    reader: AsyncEngine
    lists: AsyncEngine
    dialect: Dialect

    @property
    def unavailable_errors(self) -> tuple[type[Exception], ...]:
        """What else is raised when the database does not do what it was asked; see faults.py."""
        return (exc.DBAPIError, exc.TimeoutError, OSError, *self.dialect.driver_errors)

    @property
    def conflicts(self) -> tuple[type[Exception], ...]:
        """What is raised where rows contradict each other or do not fit."""
        return (exc.IntegrityError, exc.DataError, *self.dialect.conflicts)

    async def close(self) -> None:
        """Close every connection, the writer's last: on SQLite it does every checkpoint.

        Peers that are dead without a word are not waited for one after the other: the process
        ends anyway.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(self.dialect.close_timeout):
                await self.reader.dispose()
                await self.lists.dispose()
                await self.writer.dispose()


OVERHEAD_BYTES = 1024
"""About what the fields of a job take in an answer that are small."""


def claimable(length: str, labels: str = "labels") -> tuple[str, str]:
    """Return which columns are read of claimable jobs, and what is true of those of all types.

    `length` is the function that says how long a value is without reading it. Labels
    are kept as text that has no fewer bytes than they.
    """
    # What is overdue is the reaper's: it must not stand before what can be claimed.
    size = f"{length}({labels}) + coalesce({length}(parameters), 0) + {OVERHEAD_BYTES}"
    return f"id, job_type, create_time, {size} AS size", f"{CLAIMABLE} AND deadline >"
