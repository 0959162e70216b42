"""Databases brought up to date, and which of them a test runs on."""

import asyncio
import inspect
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import event, text

from jobledger_server.database.url import parse_url
from jobledger_server.domain.job import Instant
from jobledger_server.ledger.outages import Outages
from jobledger_server.sql.database import Database, open_database
from jobledger_server.sql.schema import migrate

several_servers = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
"""For tests with more than one server: an SQLite file is for one."""

sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For tests of what does not reach the database."""

both_databases = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
"""For tests of SQL, which the store in memory lacks; and of a whole server, which else run on
SQLite only, of what the database may change."""

MEMORY = "memory"
"""In place of the URL of a database: the store in memory, of `jobledger_world`."""


SIMULATED = "simulated sqlite"
"""The same for SQLite as a world runs it."""


def run_in_memory_too(metafunc: pytest.Metafunc, *more: str) -> None:
    """Run a test of the store on the one in memory too, unless the test is about a database.

    It is about one if it asks for it, by itself or by a fixture, or says on which ones it runs.

    Args:
        metafunc: The test.
        more: Other kinds on which it runs then.
    """
    marks = metafunc.definition.iter_markers("parametrize")
    if (
        "store" in metafunc.fixturenames
        and "database" not in metafunc.fixturenames
        and "database_url" not in inspect.signature(metafunc.function).parameters
        and not any("database_url" in mark.args[0] for mark in marks)
    ):
        kinds = ["sqlite", "postgresql", MEMORY, *more]
        metafunc.definition.add_marker(
            pytest.mark.parametrize("database_url", kinds, indirect=True)
        )


def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a database of the test's own, up to date, on what `request.param` says."""
    if request.param == "sqlite":
        file = tmp_path / "jobledger.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), file)
        return f"sqlite:///{file}"
    if request.param in (MEMORY, SIMULATED):
        return str(request.param)
    template = request.getfixturevalue("postgres_template")
    url: str = request.getfixturevalue("postgres").create_database(template)
    return url


def migrated(url: str) -> str:
    """Bring a database up to date, as the server would."""

    async def run() -> None:
        database = open_database(parse_url(url))
        await migrate(database)
        await database.close()

    asyncio.run(run())
    return url


class NoOutages(Outages):
    """Outages where there never was one, however long a test takes."""

    def answered(self, now: Instant) -> None:
        super().answered(now)
        self.resumed_at = None


async def execute(database: Database, *statements: str) -> None:
    """Run statements in one transaction, as somebody else."""
    async with database.writer.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


@contextmanager
def out_of_reach(database: Database) -> Iterator[None]:
    """Let nobody take a connection to the database during the block."""

    def away(*_: object) -> None:
        raise OSError("nobody answers")

    engines = [each.sync_engine for each in (database.writer, database.reader, database.lists)]
    for engine in engines:
        event.listen(engine, "checkout", away)
    try:
        yield
    finally:
        for engine in engines:
            event.remove(engine, "checkout", away)
