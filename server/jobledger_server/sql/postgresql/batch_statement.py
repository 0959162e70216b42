"""The one statement that writes a batch on PostgreSQL, and its parts."""

from dataclasses import dataclass
from functools import cache
from itertools import count

from sqlalchemy import JSON, BigInteger, Boolean, Column, Double, Integer, LargeBinary

from jobledger_server.sql.tables import ID, NEW_SEQS, QUEUE_NAME, queues
from jobledger_server.sql.write_statements import Insertion, Update, WriteStatement

LOCK_FEED = (
    "SELECT before + $1::bigint AS seq, before, txid_current() AS writer FROM lock_feed($3::bigint)"
)
FEED_LOCKED = (
    "SELECT $1::bigint AS seq, 0::bigint AS before, txid_current() AS writer, $3::bigint AS config"
)
"""The two forms of the part `counter` of a batch's statement: `before` is added to each NewSeq,
which counts from the newest one or is final. Its third parameter is the version of what operators
set by which the batch was decided, or NULL."""

OUTDATED = "JL001"
"""The SQLSTATE with which a statement undoes itself if that version is another one, or if a job
has changed."""

_LOCK_UNCHANGED = "lock_unchanged($4::uuid[], $5::text[])"
"""Locks jobs that were read without their locks, and is true, or an error. Its parameters: their
ids, and which transaction wrote the row of each."""

_GUARDED = {
    LOCK_FEED: LOCK_FEED.replace("$3::bigint", f"$3::bigint, {_LOCK_UNCHANGED}"),
    FEED_LOCKED: f"{FEED_LOCKED} WHERE {_LOCK_UNCHANGED}",
}

COUNTED_QUEUES = "counted_queues"
"""The part that writes the counters of queues. It returns their ids and names."""


@dataclass(frozen=True)
class Rows:
    """How the rows of a statement are passed, as its parameters.

    Attributes:
        first: The number of the first parameter.
        count: How many rows there are, whose values are the parameters. If 0 there is an array for
            each column, so that the database plans and runs one statement, not one a row. An array
            of one value costs the driver and PostgreSQL more than the value.
    """

    first: int
    count: int

    def of(self, statement: WriteStatement) -> str:
        """Return what the statement selects `new` from."""
        columns = statement.given
        array = "" if self.count else "[]"
        types = [f"{_element_type(column)}{array}" for column in columns.values()]
        numbers = count(self.first)
        rows = [
            ", ".join(f"${next(numbers)}::{type_}" for type_ in types)
            for _ in range(self.count or 1)
        ]
        values = ", ".join(f"({row})" for row in rows)
        source = f"(VALUES {values})" if self.count else f"unnest{values}"
        return f"{source} AS new ({', '.join(columns)})"


@cache
def batch_statement(
    counter: str,
    writes: tuple[tuple[WriteStatement, int], ...],
    *,
    queue_ids: bool = False,
    guarded: bool = False,
) -> str:
    """Return one statement that locks the feed and writes every row.

    Its other parts read `counter`, so the feed is locked before any row is written. In the
    opposite order two servers could deadlock. It fails if a row that is to be updated is not there;
    its second parameter is how many there are to be.

    Args:
        counter: LOCK_FEED or FEED_LOCKED.
        writes: Statements, each with the number of its rows; see `Rows.count`.
        queue_ids: Whether it returns the ids and names of the queues that it writes, too.
        guarded: Whether it first locks jobs that were read without their locks.
    """
    parts = [f"counter AS ({_GUARDED[counter] if guarded else counter})"]
    updated = []
    first = 6 if guarded else 4
    for number, (statement, rows) in enumerate(writes):
        counts_queues = isinstance(statement, Insertion) and statement.table is queues
        name = COUNTED_QUEUES if counts_queues else f"part_{number}"
        text = statement.text(f"counter, {Rows(first, rows).of(statement)}", _value)
        first += len(statement.given) * (rows or 1)
        if isinstance(statement, Update):
            text += " RETURNING 1"
            updated.append(f"(SELECT count(*) FROM part_{number})")  # noqa: S608
        elif counts_queues:
            text += f" RETURNING id, {', '.join(QUEUE_NAME)}"
        parts.append(f"{name} AS ({text})")
    ids = f", ARRAY(SELECT (id, {', '.join(QUEUE_NAME)}) FROM {COUNTED_QUEUES})"  # noqa: S608
    return (
        f"WITH {', '.join(parts)} "  # noqa: S608
        f"SELECT seq, writer{ids if queue_ids else ''} FROM counter "
        f"WHERE all_updated({' + '.join(updated) or '0'}, $2)"
    )


def _element_type(column: Column[object]) -> str:
    if column.type is ID:
        return "uuid"
    match column.type:
        case BigInteger():
            return "bigint"
        case Boolean():
            return "boolean"
        case Double():
            return "double precision"
        case Integer():
            return "integer"
        case LargeBinary():
            return "bytea"
        case _:
            return "text"


def _value(column: Column[object]) -> str:
    if column.name in NEW_SEQS:
        return f"counter.before + new.{column.name}"
    return f"new.{column.name}::json" if isinstance(column.type, JSON) else f"new.{column.name}"
