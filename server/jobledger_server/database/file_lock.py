"""The lock file of an SQLite database: one process at a time, and the feed's last known head.

Before SQLite 3.51.3 a file can be corrupted when two connections write or checkpoint it
(https://sqlite.org/wal.html, "The WAL-reset bug"), and Python often ships an older SQLite.
Within a server one connection does both; this lock excludes a second server.

The lock file also records the head of the feed. A database that was restored from a backup
is behind it, and a copy has no lock file. In both cases the cursors of clients are invalid.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import URL

from jobledger_server.store import FeedHead, StoreUnavailable


class DatabaseInUse(Exception):
    """Another process has the file; the message says which, and what to do."""


class Lock:
    """The lock file of an SQLite database, locked."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._recorded = _read_head(file)
        self.record(self._recorded or FeedHead("-", 0))

    def continues(self, head: FeedHead) -> bool:
        """Return whether `head` is of the recorded feed, and not behind the recorded head."""
        last = self._recorded
        return last is not None and last.epoch == head.epoch and last.seq <= head.seq

    def record(self, head: FeedHead) -> None:
        """Record the feed's head, for the next server. Raises OSError."""
        # In one write, so that a killed process leaves a whole record. It need not be durable: an
        # older head is still a lower bound.
        os.pwrite(self._file, f"{os.getpid():<10}\n{head.epoch:<32} {head.seq:<20}\n".encode(), 0)


def _read_head(file: int) -> FeedHead | None:
    try:
        _pid, epoch, seq = os.pread(file, 256, 0).decode().split()
        return FeedHead(epoch, int(seq))
    except ValueError:
        return None


@contextmanager
def exclusive(url: URL, *, create: bool = True) -> Iterator[Lock | None]:
    """Lock an SQLite database during the block. On PostgreSQL this does nothing.

    The operating system releases the lock when the process ends in any way.

    Args:
        url: The database.
        create: Whether to create the file if it is missing.

    Raises:
        DatabaseInUse: Another process holds the lock.
        StoreUnavailable: The files cannot be used.
    """
    if url.get_backend_name() != "sqlite":
        yield None
        return
    # The resolved path: a symbolic link names the same database.
    path = Path(str(url.database)).resolve()
    if not create:
        require_file(url)
    with _translating(url):
        file = _open(Path(f"{path}.lock"))
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(file, 10, 0).decode(errors="replace").strip() or "?"
            raise DatabaseInUse(
                f"another jobledger-server (process {owner}) uses the database {url.database}: "
                "an SQLite file is for one server at a time; for several use PostgreSQL"
            ) from None
        with _translating(url):
            lock = Lock(file)
            _check(path, url)
        yield lock
    finally:
        os.close(file)


def require_file(url: URL) -> None:
    """Raise StoreUnavailable if the database is an SQLite file that does not exist."""
    if url.get_backend_name() == "sqlite":
        with _translating(url):
            Path(str(url.database)).stat()


@contextmanager
def _translating(url: URL) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        cause = error.strerror if isinstance(error, OSError) else error
        raise StoreUnavailable(
            f"cannot use the database sqlite:///{url.database}: {cause}"
        ) from error


def _open(path: Path) -> int:
    """Open a file; create it with access for its owner only."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _check(path: Path, url: URL) -> None:
    """Raise unless the file can be used, before threads are started that would need cleanup.

    Creates the file: SQLite would make it readable by everybody. SQLite's other files get the
    mode of this one.
    """
    os.close(_open(path))
    if path.stat().st_nlink > 1:
        raise DatabaseInUse(
            f"the database {url.database} is a file with several names (hard links): SQLite "
            "would keep a write-ahead log for each name and damage it. Remove the others"
        )
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA schema_version").fetchone()
