"""What a program uses that runs servers in its own process, on a store or a disk of its own.

The simulated world is that program. Besides this module it imports the domain, the contracts of the
store, the settings and the tuning: a rule of import-linter says so. All that its servers do
otherwise is the business of the server alone.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import create_engine

from jobledger_server.app import App, Notices, OpenedStore, open_app
from jobledger_server.database.file_lock import DatabaseInUse
from jobledger_server.database.sqlite_connection import SEVERAL, Run, SqliteConnection
from jobledger_server.database.url import parse_url
from jobledger_server.sql.database import Database, open_database
from jobledger_server.sql.schema import upgrade
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.sql.sqlite.sqlite_engines import Connect
from jobledger_server.store import Store
from jobledger_server.tuning import Tuning

__all__ = [
    "SEVERAL",
    "App",
    "Connect",
    "Database",
    "DatabaseInUse",
    "Notices",
    "OpenedStore",
    "Run",
    "SqliteConnection",
    "make_sqlite_file",
    "open_app",
    "open_sqlite_database",
    "sql_store",
]


def make_sqlite_file(file: Path) -> None:
    """Write a database that is migrated and empty."""
    engine = create_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        upgrade(connection)
    engine.dispose()
    with closing(sqlite3.connect(file)) as opened:
        opened.execute("PRAGMA journal_mode=WAL")


def open_sqlite_database(file: Path, connect: Connect) -> Database:
    """Return the database in a file, which the caller closes.

    Args:
        file: The file.
        connect: Opens each connection in place of aiosqlite.
    """
    return open_database(parse_url(f"sqlite:///{file}"), connect=connect)


def sql_store(database: Database, tuning: Tuning) -> Store:
    """Return the store on a database."""
    return SqlStore(database, tuning=tuning)
