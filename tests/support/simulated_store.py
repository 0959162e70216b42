"""The store on SQLite as worlds run it, without a world around it: on any loop, in its thread."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from jobledger_server.database.url import parse_url
from jobledger_server.sql.database import open_database
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.store import Store
from jobledger_server.tuning import Tuning
from jobledger_world.disk.calls import WriteLock
from jobledger_world.disk.connection import Connection
from jobledger_world.nodes import Node


class SoundFile:
    """A file on which nothing fails; see `connection.File`."""

    def __init__(self) -> None:
        self.lock = WriteLock()

    def times(self) -> tuple[float, float]:
        return 0.0, 0.0001

    def check_statement(self, connection: Connection) -> None: ...

    def check_commit(self, connection: Connection) -> None: ...

    def committed(self, connection: Connection) -> None: ...

    def count(self, name: str) -> None: ...


@asynccontextmanager
async def simulated_store(path: Path, tuning: Tuning) -> AsyncIterator[Store]:
    """Open the store on a file that is up to date."""
    loop, file = asyncio.get_running_loop(), SoundFile()
    node = Node(loop, "server")

    async def connect() -> Connection:
        return Connection(loop, file, path, node)

    database = open_database(parse_url(f"sqlite:///{path}"), connect=connect)
    yield SqlStore(database, tuning=tuning)
    await database.close()
    assert file.lock.holder is None
