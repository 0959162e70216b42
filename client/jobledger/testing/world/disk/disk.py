"""See `Disk`."""

import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from jobledger.testing.world.chance import Chance
from jobledger.testing.world.disk.connection import Connection
from jobledger.testing.world.disk.template import new_file
from jobledger.testing.world.loop import Node, WorldLoop
from jobledger.testing.world.machine import Machine
from jobledger_server.app import OpenedStore
from jobledger_server.sql.database import open_database
from jobledger_server.sql.database_url import parse_url
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.sql.sqlite.sqlite_connection import SqliteConnection


class Disk:
    """An SQLite file that simulated servers share.

    Make it before the run, since it migrates a database the first time. Its servers use the clock
    of `time`, which `answering` replaces.

    Attributes:
        latency: Seconds that a call takes, from and to.
        counts: How often what happened.
        writer: The connection that has the file's lock.
    """

    def __init__(
        self,
        loop: WorldLoop,
        chance: Chance,
        machine: Machine,  # noqa: ARG002
        folder: Path,
    ) -> None:
        self.loop = loop
        self.latency = 0.0001, 0.001
        self.counts: Counter[str] = Counter()
        self.writer: Connection | None = None
        self._file = folder / "jobledger.db"
        self._random = chance.of("disk")
        self._connections: dict[Connection, None] = {}
        new_file(self._file, chance)

    @asynccontextmanager
    async def open(self, node: Node) -> AsyncIterator[OpenedStore]:
        """Open the store for a server that runs on this node."""

        async def connect() -> Connection:
            return self._connect(node)

        database = open_database(parse_url(f"sqlite:///{self._file}"), connect=connect)
        try:
            yield OpenedStore(SqlStore(database), connections=database.connections)
        finally:
            await database.close()

    def _connect(self, node: Node) -> Connection:
        sqlite = sqlite3.connect(
            self._file, timeout=0, isolation_level=None, factory=SqliteConnection
        )
        connection = Connection(self, sqlite, node)
        self._connections[connection] = None
        return connection

    def crash(self, node: Node) -> None:
        """Roll back and close what a dead node had open, as the operating system does."""
        for connection in [each for each in self._connections if each.node is node]:
            connection.stop()

    def held(self) -> list[str]:
        """Return what is in a transaction."""
        return [
            f"{each.node.name}: a transaction" for each in self._connections if each.in_transaction
        ]

    def close(self) -> None:
        """Close every connection, and delete the database."""
        for connection in list(self._connections):
            connection.stop()
        self._file.unlink(missing_ok=True)

    # What its connections ask.

    def delay(self) -> tuple[float, float]:
        """Return the seconds before a call runs, and those from then until its answer."""
        seconds = self._random.uniform(*self.latency)
        # Either end: what others do meanwhile comes before or after it.
        return (seconds, 0.0) if self._random.random() < 0.5 else (0.0, seconds)  # noqa: PLR2004

    def fail(self, connection: Connection) -> None:  # noqa: ARG002
        """Raise if the statement that comes next has to fail."""
        self.counts["statements"] += 1

    def reject(self, connection: Connection) -> None:
        """Raise if the commit that comes next has to fail."""

    def committed(self, connection: Connection) -> None:
        """Record a commit. Raises if its answer has to be lost."""
        self.counts["commits"] += 1
        self.loop.record("commit", connection.node.name)

    def busy(self) -> None:
        """Record that a connection did not get the lock in time."""
        self.counts["busy"] += 1

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        self._connections.pop(connection, None)
