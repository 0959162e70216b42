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
    """

    statement: str
    values: Sequence[Any] = ()
    often: bool = False


class SqliteConnection(sqlite3.Connection):
    """See the module."""

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """Run a statement, or SEVERAL up to the first that fails; return the last one's cursor."""
        if sql is not SEVERAL:
            return super().execute(sql, parameters)
        cursor = self.cursor()
        for statement, values, often in parameters:
            if often:
                cursor.executemany(statement, values)
            else:
                cursor.execute(statement, values)
        return cursor
