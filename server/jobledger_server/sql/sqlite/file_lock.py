"""One process for each SQLite file, a file that is one, and word of how far it had come.

Before SQLite 3.51.3 a file can be damaged when two connections write or
checkpoint it (https://sqlite.org/wal.html, "The WAL-reset bug"), and the SQLite
that Python brings is often older. Within a server one connection does both; this
sees to it that there is no second server.

The file beside it also says how far the feed had come. A database that is put back
from a backup is behind that, and one that is a copy has no such file: a place in
the feed that was given out before is then good no more.
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
    """The file beside an SQLite file, locked."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._seen = _read_head(file)
        self.record(self._seen or FeedHead("-", 0))

    def continues(self, head: FeedHead) -> bool:
        """Whether the feed is the one that was here before, and not behind what it was."""
        seen = self._seen
        return seen is not None and seen.epoch == head.epoch and seen.seq <= head.seq

    def record(self, head: FeedHead) -> None:
        """Note how far the feed has come, for the next server."""
        # In one write, so that whoever is killed leaves a whole note. It need not be durable:
        # an older one says less, but nothing wrong.
        os.pwrite(self._file, f"{os.getpid():<10}\n{head.epoch:<32} {head.seq:<20}\n".encode(), 0)


def _read_head(file: int) -> FeedHead | None:
    try:
        _pid, epoch, seq = os.pread(file, 256, 0).decode().split()
        return FeedHead(epoch, int(seq))
    except ValueError:
        return None


@contextmanager
def exclusive(url: URL) -> Iterator[Lock | None]:
    """Be the only one on an SQLite file for as long as the block lasts.

    The lock is on a file beside it and ends with the process, however that ends.
    On PostgreSQL this does nothing. Raises DatabaseInUse and StoreUnavailable.
    """
    if url.get_backend_name() != "sqlite":
        yield None
        return
    # By its real path: a symbolic link is the same file.
    path = Path(str(url.database)).resolve()
    try:
        file = _open(Path(f"{path}.lock"))
    except OSError as error:
        message = f"cannot use the database sqlite:///{url.database}: {error.strerror}"
        raise StoreUnavailable(message) from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(file, 10, 0).decode(errors="replace").strip() or "?"
            raise DatabaseInUse(
                f"another jobledger-server (process {owner}) uses the database {url.database}: "
                "an SQLite file is for one server at a time; for several use PostgreSQL"
            ) from None
        lock = Lock(file)
        _check(path, url)
        yield lock
    finally:
        os.close(file)


def _open(path: Path) -> int:
    """Open a file, and create it for nobody but its owner."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _check(path: Path, url: URL) -> None:
    """See that the file can be used, before the threads that will use it are there to clean up.

    Creates it: SQLite would let everybody read it, and gives its other files the same mode.
    """
    try:
        os.close(_open(path))
        if path.stat().st_nlink > 1:
            raise DatabaseInUse(
                f"the database {url.database} is a file with several names (hard links): SQLite "
                "would keep a write-ahead log for each name and damage it. Remove the others"
            )
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA schema_version").fetchone()
    except (OSError, sqlite3.Error) as error:
        cause = error.strerror if isinstance(error, OSError) else error
        raise StoreUnavailable(
            f"cannot use the database sqlite:///{url.database}: {cause}"
        ) from error
