"""The port to a database driver, for the few statements that every batch of commands runs.

SQLAlchemy compiles their text, keeps the pool and runs everything that is rare. Its own way
to run a statement is long: on SQLite it makes up to four round trips to the driver's thread
for each statement, this port one, and one for all that a batch writes. See docs/decisions/0045.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.sql import ClauseElement

from jobledger_server.domain.job import Instant, JobId
from jobledger_server.sql.job_cache import WriteId
from jobledger_server.sql.rows import Row
from jobledger_server.sql.write_statements import WriteStatement

if TYPE_CHECKING:
    from sqlalchemy.sql.compiler import SQLCompiler


Writing = tuple[WriteStatement, Sequence[Row]]
"""A statement with its rows."""

Writes = Sequence[Writing]
"""Each of them has at least one row."""


class Batch(Protocol):
    """What is written at once.

    Attributes:
        count: How many sequence numbers it takes: how many changes it adds to the feed.
        new: How many new jobs it has.
        locks_feed: Whether it adds changes to the feed, or changes counters. Otherwise the feed is
            not locked.
        updates_first: Whether updates come before insertions, as they do in `writes`: they free a
            request id or a unique key that a creation may use.
        moves: Whether jobs are moved to other queues, whose ids are known once `counts` is written.
        config_version: The version of what operators set by which the rows were decided, if they
            depend on it.
    """

    count: int
    new: int
    locks_feed: bool
    updates_first: bool
    moves: bool
    config_version: int | None

    def counts(self) -> Writes:
        """Return what to add to the counters, before all else: jobs need their queues' ids."""

    def writes(self, *, after: int) -> Writes:
        """Return what else to write, with each NewSeq counted from `after`.

        That is the newest sequence number, or 0 if the database adds that number to each NewSeq.
        """


class Driver(Protocol):
    """A connection that is in a transaction from `begin` to `commit` or `rollback`.

    Raises the driver's own errors, and TimeoutError if the database does not answer in time.
    """

    committing: bool
    """Whether a commit was sent. If it is not answered, its outcome is unknown."""

    time: Instant | None
    """The database server's time, as the transaction has read it first."""

    def is_broken_by(self, error: BaseException) -> bool:
        """Return whether the connection that raised this is broken, and its transaction lost."""

    def terminate(self) -> None:
        """Close the connection at once, without waiting for the database."""

    async def interrupt(self) -> None:
        """End the running statement, unless a timeout of the database ends it soon."""

    async def begin(self) -> None:
        """Begin a transaction that may write, at the latest with the next `fetch`."""

    async def now(self) -> Instant:
        """Return `time`, and read it if it is not known."""

    async def fetch(self, statement: str, values: Sequence[Any]) -> Sequence[Sequence[Any]]:
        """Run a statement and return all its rows."""

    async def unchanged(
        self, write_ids: Mapping[JobId, WriteId], *, look: bool = True
    ) -> Collection[JobId]:
        """Lock these jobs, in the order of their ids, at the latest before something is written.

        Return those that no transaction has written after the one with the given write id, or
        fewer. The others are not locked. Without a `look` it may return all, to find out later.

        Raises:
            Outdated: By any later call, where they are locked later, and one of them has changed.
        """

    async def append(self, batch: Batch, *, last: bool) -> tuple[int, WriteId]:
        """Lock the feed, then write the rows of a batch. After a statement fails, none is run.

        The order matters: the holder of the feed must not wait for a transaction that waits for
        the feed.

        Args:
            batch: What to write.
            last: The transaction may commit here.

        Returns:
            The newest sequence number after that, and the write id of the rows written. The
            number means nothing if the batch takes none.

        Raises:
            Outdated: The version is another one, or a job that `unchanged` returned has changed.
                The transaction is to be rolled back.
            Exception: An error of the driver with which the database is damaged: a row that is to
                be updated is not there.
        """

    async def commit(self) -> None:
        """Make durable what was written."""

    async def rollback(self) -> None:
        """Undo what was written."""


class Prepared:
    """A statement of SQLAlchemy in the driver's form: its text, and its values in order."""

    def __init__(self, statement: ClauseElement, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        self._compiled = cast("SQLCompiler", compiled)
        self.text = str(compiled)

    def values(self, parameters: Mapping[str, Any]) -> list[Any]:
        """Return the values of these parameters, in the order of the text."""
        bound = self._compiled.construct_params(dict(parameters))
        return [bound[name] for name in self._compiled.positiontup or ()]
