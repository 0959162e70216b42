"""A connection to SQLite that runs several statements in one call.

aiosqlite runs each call in the connection's thread, and the way there and back costs several times
as much CPU as a usual statement. A batch runs many, and needs the rows of the last one only.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

SEVERAL = "several statements"
"""In place of a statement: the parameters are the statements to run, each a `Run`."""


class Run(NamedTuple):
    """A statement to run.

    Attributes:
        statement: Its text.
        values: Its values, or those of each run.
        often: Whether it runs once for each of these.
        updates: How many rows it is to update, if it is to update that many.
    """

    statement: str
    values: Sequence[Any] = ()
    often: bool = False
    updates: int | None = None


class RowsMissing(sqlite3.DatabaseError):
    """Rows that were to be updated are not there."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


class SqliteConnection(sqlite3.Connection):
    """See the module."""

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """Run a statement, or SEVERAL up to the first that fails; return the last one's cursor."""
        if sql is not SEVERAL:
            return super().execute(sql, parameters)
        cursor = self.cursor()
        for statement, values, often, updates in parameters:
            if often:
                cursor.executemany(statement, values)
            else:
                cursor.execute(statement, values)
            if updates not in (None, cursor.rowcount):
                raise RowsMissing(
                    f"{updates} rows were to be updated, and {cursor.rowcount} are there"
                )
        return cursor
