"""A database of one version and the next: who works with it, and what happens to who waits."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from jobledger_server.sql.database import Database
from jobledger_server.sql.schema import HEAD, SchemaError, migrate, require_supported
from tests.support.databases import both_databases, several_servers
from tests.support.next_version import ADDS_COLUMN, NextVersion
from tests.support.server_process import run_server

SECONDS = 100
"""For the start of programs, and for what happens at once or never."""

ADDS_TABLE = """
    op.create_table("notes", sa.Column("id", sa.Integer, primary_key=True))
"""


@both_databases
async def test_a_server_works_with_the_schema_of_the_next_version(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    newer = NextVersion(tmp_path)
    assert newer.migrate(database_url) == (0, f"the database is at revision {newer.head}\n", "")
    assert await require_supported(database) == newer.head
    done = run_server("migrate", "--database", database_url)
    assert (done.returncode, done.stderr) == (0, "")
    said = f"at revision {newer.head}, newer than this server's {HEAD}, which works with it"
    assert said in done.stdout
    assert await require_supported(database) == newer.head


@both_databases
async def test_a_newer_schema_that_does_not_permit_it_is_refused_and_left_unchanged(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    newer = NextVersion(tmp_path, [ADDS_COLUMN], schema_min=None)
    assert newer.migrate(database_url)[0] == 0
    await migrate(database)
    with pytest.raises(SchemaError, match=f"needs servers for {newer.head} or newer"):
        await require_supported(database)


@pytest.fixture
async def reader(database_url: str) -> AsyncIterator[Any]:
    """Has read jobs in a transaction: until it ends, their table cannot be altered."""
    connection = await asyncpg.connect(database_url)
    await connection.execute("BEGIN; SELECT FROM jobs")
    yield connection
    await connection.close()


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


WAITS = "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'jobs'::regclass AND NOT granted)"


@several_servers
async def test_what_waits_behind_a_migration_that_waits_goes_on(
    database_url: str, tmp_path: Path, reader: Any, other: Any
) -> None:
    newer = NextVersion(tmp_path, LOCK_SECONDS=0.2, LOCK_PAUSE_SECONDS=0.1)
    migrating = [asyncio.create_task(asyncio.to_thread(newer.migrate, database_url)) for _ in "ab"]
    async with asyncio.timeout(SECONDS):
        while not await other.fetchval(WAITS):
            await asyncio.sleep(0.01)
        # It needs a lock that PostgreSQL does not give past a session that waits for more.
        await other.execute("INSERT INTO jobs SELECT * FROM jobs")
    await reader.execute("COMMIT")
    logs = []
    for code, out, err in await asyncio.gather(*migrating):
        assert (code, out) == (0, f"the database is at revision {newer.head}\n")
        logs += map(json.loads, err.splitlines())
    # One of the two; the other one waited for it.
    assert {line["event"] for line in logs} == {"migration_waits_for_lock"}
    assert [line["tries"] for line in logs] == list(range(1, len(logs) + 1))


@several_servers
async def test_a_migration_that_gets_no_lock_ends_with_what_to_do_and_keeps_what_it_did(
    database: Database, database_url: str, tmp_path: Path, reader: Any
) -> None:
    newer = NextVersion(
        tmp_path,
        [ADDS_TABLE, ADDS_COLUMN],
        LOCK_SECONDS=0.2,
        LOCK_TRIES=2,
        LOCK_PAUSE_SECONDS=0.1,
    )
    code, out, err = await asyncio.to_thread(newer.migrate, database_url)
    assert (code, out) == (1, "")
    assert "end its transaction, and migrate again" in err
    assert "ALTER TABLE jobs ADD COLUMN of_next" in err
    assert await require_supported(database) == f"{int(newer.head) - 1:04}"
    await reader.execute("COMMIT")
    code, out, err = await asyncio.to_thread(newer.migrate, database_url)
    assert (code, out, err) == (0, f"the database is at revision {newer.head}\n", "")
