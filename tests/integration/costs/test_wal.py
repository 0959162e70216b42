"""What the writes of a job do not cost the database: its payloads again, or entries of indexes.

How many bytes a write takes, `make bench ARGS="compare main ."` says.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from jobledger_server.database.url import parse_url
from jobledger_server.domain.commands import ChangeStatus, Command, Create, Report
from jobledger_server.domain.job import Job, JobStatus, Payload
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.sql.database import Database, open_database
from jobledger_server.sql.sql_store import SqlStore
from tests.support.databases import NoOutages, migrated
from tests.support.ledger_calls import apply, claim, claim_jobs
from tests.support.postgres_server import PostgresServer
from tests.support.shared_postgres import Databases

CLAIM = claim(worker="worker-1", max_jobs=10)

PARAMETERS = Payload(bytes(range(256)) + bytes(94))

JOBS = 200
"""Jobs in flight, each with parameters of 350 bytes."""

REPORTS = 50
"""Reports on each."""


Written = Callable[[], Awaitable[int]]
"""Returns how many bytes were written since its last call."""


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[PostgresServer]:
    """A cluster that nobody else writes to."""
    server = PostgresServer(durable=False)
    yield server
    server.close()


@asynccontextmanager
async def serving(url: str) -> AsyncIterator[tuple[Ledger, Database]]:
    """Yield a ledger. PostgreSQL counts what its connections did when they end."""
    database = open_database(parse_url(url))
    async with Ledger(SqlStore(database), lambda _: None, max_waiting=10_000) as ledger:
        ledger.outages = NoOutages()
        yield ledger, database
    await database.close()


async def together(ledger: Ledger, commands: Iterable[Command]) -> list[Job]:
    """Apply commands that arrive together."""
    return [done.job for done in await asyncio.gather(*(apply(ledger, each) for each in commands))]


def creations(count: int) -> list[Create]:
    creation = Create(user_id="ada", job_type="render", parameters=PARAMETERS)
    return [creation] * count


def moves(jobs: Iterable[Job], target: JobStatus) -> list[ChangeStatus]:
    return [ChangeStatus(job_id=job.id, target=target, worker_id="worker-1") for job in jobs]


def reports(jobs: Iterable[Job], progress: int | None = None) -> list[Report]:
    return [Report(job_id=job.id, attempt=1, progress=progress) for job in jobs]


class Counted:
    """What PostgreSQL has written and updated since the last call."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection
        self._wal = self._updates = self._hot = 0

    async def wal(self) -> int:
        """Return the bytes of write-ahead log."""
        before = self._wal
        self._wal = int(await self._connection.fetchval("SELECT pg_current_wal_lsn() - '0/0'"))
        return self._wal - before

    async def hot_share(self) -> float:
        """Return the share of HOT updates among the updates of jobs."""
        updates, hot = self._updates, self._hot
        found = await self._connection.fetchrow(
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'jobs'"
        )
        assert found is not None
        self._updates, self._hot = found
        return (self._hot - hot) / (self._updates - updates)


async def test_a_report_on_postgresql_changes_no_index(own_postgres: PostgresServer) -> None:
    url = await asyncio.to_thread(migrated, own_postgres.create_database())
    connection = await asyncpg.connect(url)
    counted = Counted(connection)
    async with serving(url) as (ledger, _):
        jobs = await together(ledger, creations(JOBS))
        jobs = await together(ledger, moves(jobs, JobStatus.PROCESSING))
    await counted.hot_share()
    async with serving(url) as (ledger, _):
        for progress in range(1, REPORTS + 1):
            await together(ledger, reports(jobs, progress))
    assert await counted.hot_share() >= 0.95
    await connection.close()


async def keep_log(database: Database) -> None:
    """Let SQLite's log grow: its size is what was written."""
    writer = database.writer.execution_options(**database.dialect.single_statement)
    async with writer.connect() as connection:
        await connection.exec_driver_sql("PRAGMA wal_autocheckpoint=0")


LARGE_PARAMETERS = Payload(random.Random(1).randbytes(250_000))  # no compression makes it small


async def changes_of(ledger: Ledger, parameters: Payload, written: Written) -> dict[str, int]:
    """Return what each kind of change of a job with these parameters writes."""
    creation = Create(user_id="ada", job_type="render", parameters=parameters)
    jobs = await together(ledger, [creation] * 10)
    await written()
    jobs = list(await claim_jobs(ledger, CLAIM))
    found = {"claims": await written()}
    for progress in range(1, 11):
        await together(ledger, reports(jobs, progress))
    found["reports"] = await written()
    for _ in range(10):
        checkpoint = Payload(bytes(100))
        await together(
            ledger, [Report(job_id=job.id, attempt=1, checkpoint=checkpoint) for job in jobs]
        )
    found["checkpoints"] = await written()
    for _ in range(10):
        await together(ledger, reports(jobs))
    found["renewals"] = await written()
    await together(ledger, moves(jobs, JobStatus.COMPLETED))
    found["completions"] = await written()
    assert len(jobs) == 10
    assert all(found.values())
    return found


def assert_about_equal(small: dict[str, int], large: dict[str, int]) -> None:
    assert {kind: size for kind, size in large.items() if size > 1.1 * small[kind]} == {}, small


async def test_postgresql_writes_the_same_whatever_the_size_of_the_parameters(
    own_postgres: PostgresServer,
) -> None:
    found: list[dict[str, int]] = []
    for parameters in (PARAMETERS, LARGE_PARAMETERS):
        url = await asyncio.to_thread(migrated, own_postgres.create_database())
        connection = await asyncpg.connect(url)
        async with serving(url) as (ledger, _):
            found.append(await changes_of(ledger, parameters, Counted(connection).wal))
        await connection.close()
    assert_about_equal(*found)


async def test_sqlite_writes_the_same_whatever_the_size_of_the_parameters(tmp_path: Path) -> None:
    found: list[dict[str, int]] = []
    for parameters in (PARAMETERS, LARGE_PARAMETERS):
        file = tmp_path / f"{len(found)}.db"
        url = await asyncio.to_thread(migrated, f"sqlite:///{file}")
        async with serving(url) as (ledger, database):
            await keep_log(database)
            found.append(await changes_of(ledger, parameters, growth(Path(f"{file}-wal"))))
    assert_about_equal(*found)


def growth(log: Path) -> Written:
    """Return what returns how much the file has grown since its last call."""
    before = 0

    async def grown() -> int:
        nonlocal before
        size, before = log.stat().st_size - before, log.stat().st_size
        return size

    return grown


async def test_commits_do_not_update_the_row_that_locks_the_feed(postgres: Databases) -> None:
    """As while `pg_dump` runs: nothing that a commit leaves there can be removed until its end."""
    url = await asyncio.to_thread(migrated, postgres.create_database())
    connection = await asyncpg.connect(url)
    async with serving(url) as (ledger, _), connection.transaction(isolation="repeatable_read"):
        await connection.fetchval("SELECT count(*) FROM jobs")
        for _ in range(20):
            await together(ledger, creations(2))
    updates = "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'feed'"
    assert await connection.fetchval(updates) <= 1  # the identity at the start
    await connection.close()
