"""Counts the statements that this process gives to SQLite: a byte in a file for each.

Python imports it by itself where its folder is on the path. SQLite has no log of its own, and
so they cannot be counted from outside.
"""

import os
import sqlite3
from typing import Any

_connect = sqlite3.connect
_trace = os.open(os.environ["JOBLEDGER_TRACE"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def _traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
    connection: sqlite3.Connection = _connect(*arguments, **options)
    connection.set_trace_callback(lambda _: os.write(_trace, b"."))
    return connection


sqlite3.connect = _traced  # type: ignore[assignment]
