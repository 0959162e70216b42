"""The driver's own connection, for the few statements that every batch of commands runs.

SQLAlchemy makes their text, keeps the pool and does everything that is rare. Its way to
run a statement is long: on SQLite the driver's thread is asked up to four times for each,
where it is asked once here. See docs/decisions/0023.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.sql import ClauseElement

from jobledger_server.domain.job import Instant, JobId
from jobledger_server.sql.job_cache import Mark
from jobledger_server.sql.rows import Row

if TYPE_CHECKING:
    from sqlalchemy.sql.compiler import SQLCompiler


Writing = Callable[[int], str]
"""A statement that inserts or changes rows. What its text depends on is each dialect's own."""

Writes = Sequence[tuple[Writing, Sequence[Row]]]
"""Statements of the dialect's `insertion` and `change`. Each has rows of its own, one at least."""

Deletion = tuple[str, Sequence[Any]]
"""A statement that deletes rows, and its values."""


class Driver(Protocol):
    """A connection that is in a transaction from `begin` to `commit` or `rollback`.

    Raises the driver's own errors, and TimeoutError where the database does not
    answer in time.
    """

    committing: bool
    """Whether the database was told to commit: where it does not answer, it may have done so."""

    def lost(self, error: BaseException) -> bool:
        """Whether the connection that raised this is broken: its transaction ends with it."""

    def terminate(self) -> None:
        """Break the connection off, without a word to the database and without waiting for one."""

    async def interrupt(self) -> None:
        """End the statement that is running, as far as it does not end by itself soon."""

    async def begin(self) -> None:
        """Begin a transaction that may write, at the latest with the next `fetch`."""

    async def now(self) -> Instant:
        """Return the database server's time."""

    async def fetch(self, statement: str, values: Sequence[Any]) -> Sequence[Sequence[Any]]:
        """Run a statement and return all its rows."""

    async def unchanged(self, marks: Mapping[JobId, Mark]) -> Collection[JobId]:
        """Lock these jobs, in the order of their ids.

        Return those that nobody has written since the transactions of these marks.
        """

    async def append(
        self,
        count: int,
        writes: Callable[[int], Writes],
        *,
        deletion: Deletion | None,
        new: int,
        last: bool,
    ) -> tuple[int, Mark]:
        """Lock the feed's counter, move it on by `count`, delete, and insert or change rows.

        In this order: a deletion gives back the request ids that a creation may take, and who
        waits for the counter must have nothing that its holder can wait for.

        `writes` is given the place where the counter stood, or 0 where the database adds it, and
        returns what to write; `new` is how many new jobs are in it. After a statement that fails
        none is run. With `last` it may commit. Returns where the counter stands now, and what the
        rows that were written can be told by.
        """

    async def commit(self) -> None:
        """Make durable what was written."""

    async def rollback(self) -> None:
        """Undo what was written."""


class Prepared:
    """A statement of SQLAlchemy's as the driver takes it: its text, and its values in order."""

    def __init__(self, statement: ClauseElement, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        self._compiled = cast("SQLCompiler", compiled)
        self.text = str(compiled)

    def values(self, parameters: Mapping[str, Any]) -> list[Any]:
        bound = self._compiled.construct_params(dict(parameters))
        return [bound[name] for name in self._compiled.positiontup or ()]
