"""Writes down every statement that this process gives to SQLite, each on a line of its own.

Python imports it by itself where its folder is on the path. It counts what cannot
be counted from outside: SQLite has no log of its own.
"""

import os
import sqlite3
from pathlib import Path
from typing import Any

_connect = sqlite3.connect
_trace = Path(os.environ["JOBLEDGER_TRACE"]).open("a", buffering=1)  # noqa: SIM115


def _traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
    connection: sqlite3.Connection = _connect(*arguments, **options)
    connection.set_trace_callback(lambda sql: print(" ".join(sql.split()), file=_trace))
    return connection


sqlite3.connect = _traced  # type: ignore[assignment]
