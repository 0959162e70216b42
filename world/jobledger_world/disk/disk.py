"""See `Disk`."""

import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, closing, nullcontext
from itertools import count
from pathlib import Path

from jobledger_server.embedded import Database, OpenedStore, open_sqlite_database, sql_store
from jobledger_server.tuning import Tuning
from jobledger_world.backup import Backup
from jobledger_world.chance import Chance
from jobledger_world.database_faults import DatabaseFaults
from jobledger_world.disk.calls import WriteLock
from jobledger_world.disk.connection import Connection
from jobledger_world.disk.errors import (
    FULL,
    MISSING,
    UNFLUSHED,
    UNREADABLE,
    UNWRITABLE,
    sqlite_error,
)
from jobledger_world.disk.feed_record import FeedRecord, LockFile
from jobledger_world.disk.template import new_file, set_epoch
from jobledger_world.loop import WorldLoop
from jobledger_world.nodes import Node


class Disk(DatabaseFaults):
    """An SQLite file that simulated servers share, and what can go wrong with it.

    Make it before the run: the first one in a process migrates a database. Its servers use the
    clock of `time`, which `answering` replaces.

    Args:
        loop: The world's loop.
        chance: Decides latencies and faults, and the database's secrets.
        folder: Where the file is made. The disk deletes it when it is closed.
        exclusive: Whether only one server at a time opens it, as real ones do.

    Attributes:
        lock: The file's lock. As the product does, a transaction that writes takes it when it
            begins. A connection that does not get it in time reports that the database is locked.
    """

    def __init__(
        self, loop: WorldLoop, chance: Chance, folder: Path, *, exclusive: bool = False
    ) -> None:
        super().__init__(loop, chance)
        self.lock = WriteLock()
        self._lock_file = LockFile() if exclusive else None
        self._file = folder / "jobledger.db"
        self._numbers = count(1)
        self._epochs = chance.of("epochs")
        self._connections: dict[Connection, None] = {}
        new_file(self._file, chance)

    @asynccontextmanager
    async def open(self, node: Node, tuning: Tuning = Tuning()) -> AsyncIterator[OpenedStore]:
        """Open the store for a server that runs on this node.

        Raises:
            DatabaseInUse: Another server has it, and the disk is `exclusive`.
        """
        with self._locked(node) as record:
            database = self.database(node)
            try:
                yield OpenedStore(sql_store(database, tuning), record, database.connections)
            finally:
                await database.close()

    def database(self, node: Node) -> Database:
        """Return the database for a process that runs on this node, which closes it."""

        async def connect() -> Connection:
            return self._connect(node)

        return open_sqlite_database(self._file, connect)

    def _locked(self, node: Node) -> AbstractContextManager[FeedRecord | None]:
        return nullcontext() if self._lock_file is None else self._lock_file.locked(node)

    def _connect(self, node: Node) -> Connection:
        if self.is_cut(node):
            raise sqlite_error(*MISSING)
        connection = Connection(self._loop, self, self._file, node)
        self._connections = {each: None for each in self._connections if each.is_open}
        self._connections[connection] = None
        return connection

    def crash(self, node: Node) -> None:
        """Undo what a dead node had not committed, and close what it had open."""
        for connection in self._connections:
            if connection.node is node:
                connection.crash()
        if self._lock_file is not None:
            self._lock_file.release(node)

    def backup(self) -> Backup:
        """Copy what is committed, as one does while a server runs."""
        file = self._file.with_name(f"backup-{next(self._numbers)}.db")
        with closing(sqlite3.connect(self._file)) as now, closing(sqlite3.connect(file)) as copy:
            now.backup(copy)

        def restore() -> None:
            self._delete()
            shutil.copy(file, self._file)
            if self._lock_file is None:
                # No server can find out. This is what `jobledger-server void-tokens` does.
                set_epoch(self._file, self._epochs)

        return Backup(restore)

    def held(self) -> list[str]:
        """Return which transactions are open."""
        return [
            f"{each.node.name} {'writes' if each.writes else 'reads'}"
            for each in self._connections
            if each.is_open and each.in_transaction
        ]

    def close(self) -> None:
        """Close every connection, and delete the database."""
        for connection in self._connections:
            connection.crash()
        self._delete()

    def _delete(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self._file}{suffix}").unlink(missing_ok=True)

    # What connections ask; see `connection.File`.

    def check_statement(self, connection: Connection) -> None:
        """Raise if the statement that comes next has to fail."""
        self.counts["statements"] += 1
        if self.is_cut(connection.node) or self.happens("failed", self.fails):
            self._fail(connection)

    def check_commit(self, connection: Connection) -> None:
        """Raise if the commit that comes next has to fail."""
        if self.is_cut(connection.node) or self.happens("rejected", self.rejects):
            self._fail(connection)

    def committed(self, connection: Connection) -> None:
        """Record a commit. Raises if its answer has to be lost."""
        self.counts["commits"] += 1
        self._loop.record("commit", connection.node.name)
        if self.happens("lost", self.loses):
            raise sqlite_error(*UNFLUSHED)

    def count(self, name: str) -> None:
        """Count that a transaction was "busy", or a statement "interrupted"."""
        self.counts[name] += 1

    def _fail(self, connection: Connection) -> None:
        """Raise what SQLite would raise."""
        if not connection.writes:
            raise sqlite_error(*UNREADABLE)
        # SQLite may have rolled back by itself (https://sqlite.org/lang_transaction.html, 3).
        if self._faults.random() < 0.5:  # noqa: PLR2004
            connection.undo()
        raise sqlite_error(*self._faults.choice([FULL, UNWRITABLE]))
