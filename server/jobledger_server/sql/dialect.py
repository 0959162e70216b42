"""The port to a kind of database: what the store needs to know of it."""

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Any, Protocol

from sqlalchemy import ColumnElement, Select
from sqlalchemy.engine.interfaces import Dialect as SqlDialect
from sqlalchemy.ext.asyncio import AsyncConnection

from jobledger_server.domain.job import Instant, JobId
from jobledger_server.sql.driver import Driver
from jobledger_server.sql.tables import READY, STATE, tenant


class Dialect(Hashable, Protocol):
    """What the store needs to know of its database."""

    name: str
    """SQLAlchemy's name for the database."""

    sqlalchemy: SqlDialect
    """SQLAlchemy's own dialect for the driver, by which statements are compiled."""

    conflicts: tuple[type[Exception], ...]
    """What the driver raises if rows contradict each other or values do not fit."""

    driver_errors: tuple[type[Exception], ...]
    """What else the driver raises."""

    single_statement: Mapping[str, Any]
    """Execution options for a statement that needs no transaction around it."""

    snapshot: Mapping[str, Any]
    """Execution options for a transaction whose statements all read the same snapshot."""

    def one_of(self, column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
        """Return `column IN (list)` with the list bound as `name`: one text for any length."""

    def with_tuples(
        self, statement: Select[Any], columns: Sequence[ColumnElement[Any]], name: str
    ) -> Select[Any]:
        """Return the statement for the rows with `(columns) IN (list of tuples)`.

        No two rows have the same values there. The list is bound as `name`.
        """

    def bind_list(self, name: str, values: Collection[str]) -> dict[str, Any]:
        """Return the parameters for `one_of`."""

    def bind_tuples(self, name: str, values: Collection[tuple[str, ...]]) -> dict[str, Any]:
        """Return the parameters for `with_tuples`."""

    def locked(self, statement: Select[Any], *, skip: bool = False) -> Select[Any]:
        """Return the statement with its rows locked until the transaction ends.

        They are the rows of jobs. With `skip` it skips those that another transaction has locked.
        """

    def find_queues(self, limits: Mapping[str, int], *, limit: int) -> tuple[str, Sequence[Any]]:
        """Return the statement, with its values, for queues that have ready jobs.

        Of each type the first ones, by priority, virtual time and id; at most as many as its limit.
        Of all these the first `limit` in FIRST_OF_ALL. Its rows are those of QUEUE_COLUMNS.
        """

    def find_ready(self, counts: Mapping[int, int]) -> tuple[str, Sequence[Any]]:
        """Return the statement, with its values, for ready jobs whose deadline has not passed.

        Of each queue the oldest ones, as many as it counts by the queue's id. Its rows are those of
        `Claimable`, in the order of the queues' jobs. Its cost does not depend on how many jobs
        wait.
        """

    def lock_ready(self, counts: Mapping[JobId, int]) -> tuple[str, Sequence[Any]]:
        """Return that statement for the queues of these jobs. It locks the jobs that it returns.

        Those that another transaction has locked are skipped.
        """

    def lock_keys(self, keys: Collection[str]) -> tuple[str, Sequence[Any]]:
        """Return the statement, with its values, that locks the feed and reads concurrency keys.

        Its rows are keys, each followed by the fields of its `queues.KeyState`, as of the time when
        the lock is held, and by that time.
        """

    def lock_groups(self, ids: Collection[JobId]) -> tuple[str, Sequence[Any]]:
        """Return the statement, with its values, that locks the feed and then reads groups.

        It locks the groups, but for those that another transaction has locked. Its rows are those
        of STATE.
        """

    def find_tails(self, streams: Collection[tuple[JobId, str]]) -> tuple[str, Sequence[Any]]:
        """Return the statement, with its values, for the tails of these streams of output.

        Its rows are the job and the stream, and the fields of an `output.OutputTail`.
        """

    def find_pieces(
        self, after: Collection[tuple[JobId, str, int]], *, limit: int
    ) -> Sequence[tuple[str, Sequence[Any]]]:
        """Return the statements, with their values, for pieces of streams of output.

        Of each stream those that begin at an offset or later, `limit` at most. Their rows have the
        fields of an `output.OutputPiece`.
        """

    def find_piece_at(self, job_id: JobId, stream: str, offset: int) -> tuple[str, Sequence[Any]]:
        """Return the statement, with its values, for where the piece begins that has an offset."""

    def find_newest_pieces(
        self, job_id: JobId, stream: str, count: int
    ) -> tuple[str, Sequence[Any]]:
        """Return the statement, with its values, for where the newest `count` pieces begin."""

    def rows_of(self, query: str) -> str:
        """Return the condition for the rows `old` of a query, which begins with FROM."""

    counted_queues: str
    """The table in which a batch that counts its jobs finds the ids of their queues, or the part of
    its statement that has them."""

    def drivers(self) -> Callable[[Any], Driver]:
        """Return what wraps the driver's own connections to one database, for its batches."""

    def in_transaction(self, connection: Any) -> bool:
        """Return whether a transaction is open on the driver's own connection."""

    close_timeout: float | None
    """Seconds that closing all connections may take; None without a server to wait for."""

    database_identity: ColumnElement[str]
    """Differs between the database and a copy of it, as far as the database can know."""

    @property
    def clock(self) -> ColumnElement[int]:
        """The database server's time, for use in a statement."""

    async def now(self, connection: AsyncConnection) -> Instant:
        """Return the database server's time."""


# As JSON, labels have at least as many characters as they have bytes in an answer. A character of
# other text has at most 4.
CLAIMABLE_COLUMNS = (
    "id, job_type, parameters_bytes + checkpoint_bytes + length(CAST(labels AS text))"
    f" + 4 * coalesce(length(last_error_message), 0) AS size, priority, {tenant()} AS tenant"
)
"""The columns read of jobs that may be claimed."""

# Overdue jobs belong to the reaper, and must not hide jobs that can be claimed. `+ 0` keeps the
# planner from the index on deadlines: nearly every job's is later.
READY_AFTER = f"{READY} AND deadline + 0 >"
"""Their condition, which lacks only the time."""

OLDEST_FIRST = "ORDER BY create_time, id"

GROUPS = f"SELECT {', '.join(column.name for column in STATE)} FROM {{source}}"  # noqa: S608
"""The query for groups."""

QUEUE_OF = "(SELECT own.queue_id FROM jobs AS own WHERE own.id = {id})"
"""The query for the id of a job's queue."""

QUEUE_COLUMNS = "job_type, priority, fairness_key, id, vtime, ready"
"""The columns read of queues."""

_NEXT = "ORDER BY priority DESC, vtime, id"

FIRST_QUEUES = f"claimable = 1 {_NEXT}"
"""The condition and the order of those of one type that go next."""

PLACE = f"row_number() OVER ({_NEXT}) AS place"
"""The place of each of them."""

FIRST_OF_ALL = "ORDER BY priority DESC, place, turn"
"""The order of those of several types, which have `turn`s. `queues.next_queues` takes a job from a
queue only after one job for each queue before it."""
