"""One process for each SQLite file, and a file that is one.

Before SQLite 3.51.3 a file can be damaged when two connections write or
checkpoint it (https://sqlite.org/wal.html, "The WAL-reset bug"), and the SQLite
that Python brings is often older. Within a server one connection does both; this
sees to it that there is no second server.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from sqlalchemy import URL

from jobledger_server.store import StoreUnavailable


class DatabaseInUse(Exception):
    """Another process has the file; the message says which, and what to do."""


@contextmanager
def exclusive(url: URL) -> Iterator[None]:
    """Be the only one on an SQLite file for as long as the block lasts.

    The lock is on a file beside it and ends with the process, however that ends.
    On PostgreSQL this does nothing. Raises DatabaseInUse and StoreUnavailable.
    """
    if url.get_backend_name() != "sqlite":
        yield
        return
    path = f"{url.database}.lock"
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        message = f"cannot use the database sqlite:///{url.database}: {error.strerror}"
        raise StoreUnavailable(message) from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(file, 32).decode(errors="replace").strip() or "?"
            raise DatabaseInUse(
                f"another jobledger-server (process {owner}) uses the database {url.database}: "
                "an SQLite file is for one server at a time; for several use PostgreSQL"
            ) from None
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        _check(url)
        yield
    finally:
        os.close(file)


def _check(url: URL) -> None:
    """See that the file can be used, before the threads that will use it are there to clean up."""
    try:
        with closing(sqlite3.connect(str(url.database))) as connection:
            connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.Error as error:
        raise StoreUnavailable(
            f"cannot use the database sqlite:///{url.database}: {error}"
        ) from error
