"""Real failures of the database: what callers are answered, what the log and the metrics say,
and that the server recovers by itself when they are over."""

import asyncio
import resource
import sqlite3
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path

import asyncpg
import grpc
import pytest
from sqlalchemy import URL

from jobledger_server import app as app_module
from jobledger_server.app import App
from jobledger_server.database.url import BadDatabaseUrl, parse_url
from jobledger_server.domain.commands import Create
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.sql.database import Database, open_database
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.store import StoreFault
from tests.support.databases import both_databases
from tests.support.ledger_calls import apply
from tests.support.ports import free_port
from tests.support.postgres_server import PostgresServer
from tests.support.rpc_caller import BASIC, COMPLETED, TOO_SLOW, Refusal, calling, refusal
from tests.support.server_process import ServerProcess

Start = Callable[..., Awaitable[App]]
Fault = Callable[[Database, str], AbstractAsyncContextManager[None]]

TAKES_NO_WRITES = "the database does not accept writes at the moment"
DOES_NOT_ANSWER = "the database does not answer"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Database]:
    """The connections of each server that a test starts in this process."""
    opened: list[Database] = []

    def open_noted(url: URL) -> Database:
        opened.append(open_database(url))
        return opened[-1]

    monkeypatch.setattr(app_module, "open_database", open_noted)
    return opened


@asynccontextmanager
async def through_the_writer(database: Database, begin: str, end: str) -> AsyncIterator[None]:
    """Set a pragma on SQLite's writing connection, and undo it."""
    writer = database.writer.execution_options(without_begin=True)
    for statement in (begin, end):
        async with writer.connect() as connection:
            await connection.exec_driver_sql(statement)
        if statement == begin:
            yield


@asynccontextmanager
async def by_somebody_else(url: str, begin: str, end: str) -> AsyncIterator[None]:
    """Change a database, and change it back."""
    for statements in (begin, end):
        if url.startswith("sqlite"):
            # In a thread: a transaction of the server may have to end first.
            await asyncio.to_thread(_run_script, url.removeprefix("sqlite:///"), statements)
        else:
            settings = {"default_transaction_read_only": "off"}
            connection = await asyncpg.connect(url, server_settings=settings)
            # Each a transaction: who connects after the second one sees what the first has set.
            for statement in statements.split(";\n"):
                await connection.execute(statement)
            await connection.close()
        if statements == begin:
            yield


def _run_script(file: str, statements: str) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(statements)


def disk_full(database: Database, url: str) -> AbstractAsyncContextManager[None]:
    """SQLite by its own limit; PostgreSQL by a trigger: a real full disk is hard to make."""
    if database.dialect.name == "sqlite":
        # As few pages as there are.
        return through_the_writer(
            database, "PRAGMA max_page_count=1", "PRAGMA max_page_count=1000000"
        )
    return by_somebody_else(
        url,
        "CREATE FUNCTION full_disk() RETURNS trigger AS $$ BEGIN RAISE EXCEPTION USING "
        "ERRCODE = '53100', MESSAGE = 'could not extend file: No space left on device'; END $$ "
        "LANGUAGE plpgsql; "
        "CREATE TRIGGER full_disk BEFORE INSERT ON jobs EXECUTE FUNCTION full_disk()",
        "DROP TRIGGER full_disk ON jobs",
    )


def read_only(database: Database, url: str) -> AbstractAsyncContextManager[None]:
    if database.dialect.name == "sqlite":
        return through_the_writer(database, "PRAGMA query_only=ON", "PRAGMA query_only=OFF")
    name = url.rpartition("/")[2]
    cut_off = (
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
        f"WHERE datname = '{name}' AND application_name = 'jobledger'"
    )
    alter = f"ALTER DATABASE {name} SET default_transaction_read_only"
    return by_somebody_else(url, f"{alter} = on;\n{cut_off}", f"{alter} = off;\n{cut_off}")


def table_missing(url: str) -> AbstractAsyncContextManager[None]:
    return by_somebody_else(
        url, "ALTER TABLE jobs RENAME TO elsewhere", "ALTER TABLE elsewhere RENAME TO jobs"
    )


def lock_held(database: Database, url: str) -> AbstractAsyncContextManager[None]:
    """Another session holds a lock that every write needs for longer than a write waits."""
    return _sqlite_held(url) if database.dialect.name == "sqlite" else _postgresql_held(url)


@asynccontextmanager
async def _sqlite_held(url: str) -> AsyncIterator[None]:
    file = url.removeprefix("sqlite:///")
    holder = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    # In a thread: a transaction of the server may have to end first.
    await asyncio.to_thread(holder.execute, "BEGIN IMMEDIATE")
    yield
    holder.close()


@asynccontextmanager
async def _postgresql_held(url: str) -> AsyncIterator[None]:
    holder = await asyncpg.connect(url)
    async with holder.transaction():
        await holder.execute("SELECT 1 FROM feed FOR UPDATE")
        yield
    await holder.close()


async def errors_counted(metrics: str) -> dict[str, int]:
    """Return what Prometheus would read, by kind, without those that are 0."""

    def read() -> str:
        with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    name = 'jobledger_store_errors_total{kind="'
    lines = (await asyncio.to_thread(read)).splitlines()
    found = (line.removeprefix(name).split('"} ') for line in lines if line.startswith(name))
    return {kind: int(float(count)) for kind, count in found if float(count)}


def logged(caplog: pytest.LogCaptureFixture) -> set[tuple[str, str]]:
    """Return the level and the kind of each line about a write that failed."""
    lines = [record for record in caplog.records if record.getMessage() == "write_failed"]
    assert all(vars(line)["cause"] for line in lines)
    return {(line.levelname, vars(line)["kind"]) for line in lines}


@both_databases
@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (disk_full, "disk_full", TAKES_NO_WRITES),
        (read_only, "read_only", TAKES_NO_WRITES),
        (lock_held, "timeout", TOO_SLOW),
    ],
)
async def test_a_temporary_database_error_is_unavailable_and_reads_continue(
    start: Start,
    served: list[Database],
    database_url: str,
    caplog: pytest.LogCaptureFixture,
    fault: Fault,
    kind: str,
    words: str,
) -> None:
    metrics = f"127.0.0.1:{free_port()}"
    app = await start(metrics=metrics)
    async with calling(app.address) as call:
        pad = {"parameters": {"pad": "x" * 200_000}}  # more than fits into a page that is there
        job = await call.job(**pad)
        async with fault(served[0], database_url):
            refused = await refusal(call.job(**pad))
            assert (refused.code, refused.message) == (grpc.StatusCode.UNAVAILABLE, words)
            assert "RetryInfo" in refused.details
            read = await call.GetJob(job_id=job.id, user_id="ada", view=BASIC)
            assert read.job == job, "reads go on"
        counted = await errors_counted(metrics)
        assert counted[kind] >= 1
        assert counted.keys() <= {kind, "connection"}
        assert ("WARNING", kind) in logged(caplog)
        again = await call.job(**pad)
        assert (await call.GetJob(job_id=again.id, user_id="ada", view=BASIC)).job == again


@both_databases
async def test_a_table_that_is_missing_is_internal_and_the_log_says_what_is_missing(
    start: Start, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = f"127.0.0.1:{free_port()}"
    app = await start(metrics=metrics)
    async with calling(app.address) as call:
        job = await call.job()
        async with table_missing(database_url):
            for called in (call.job(), call.GetJob(job_id=job.id, user_id="ada")):
                refused: Refusal = await refusal(called)
                assert refused.code is grpc.StatusCode.INTERNAL
                found = [
                    record
                    for record in caplog.records
                    if vars(record).get("correlation_id") == refused.metadata["correlation_id"]
                ]
                assert ["jobs" in str(record.exc_info) for record in found] == [True]
        assert (await errors_counted(metrics))["programming"] >= 1
        polls = [record for record in caplog.records if record.name == "jobledger.tail"]
        assert all(record.exc_info is None for record in polls), "no traceback at each poll"
        assert ("ERROR", "programming") in logged(caplog)
        assert (await call.GetJob(job_id=job.id, user_id="ada", view=BASIC)).job == job
        await call.job()


@both_databases
async def test_a_constraint_violation_is_counted_once_and_its_values_are_not_logged(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    bad = Create(user_id="ada", job_type="", labels={"secret": "password"})
    good = [Create(user_id="ada", job_type="render", request_id=f"r{i}") for i in range(20)]
    for _ in range(2):  # the second time they are repetitions, which is no error
        outcomes = await asyncio.gather(
            *(apply(ledger, each) for each in [*good, bad]), return_exceptions=True
        )
        assert sum(isinstance(outcome, Exception) for outcome in outcomes) == 1
    assert {kind: n for kind, n in ledger.store_errors.items() if n} == {"constraint": 2}
    assert logged(caplog) == {("ERROR", "constraint")}
    assert "password" not in "".join(str(vars(record)) for record in caplog.records)


def damage(file: Path, table: str) -> None:
    """Overwrite the first page of a table."""
    with sqlite3.connect(file) as connection:
        (root,) = connection.execute(f"SELECT rootpage FROM sqlite_schema WHERE name = '{table}'")
        (size,) = connection.execute("PRAGMA page_size")
    connection.close()
    with file.open("r+b") as data:
        data.seek((root[0] - 1) * size[0])
        data.write(b"\xff" * size[0])


async def test_a_file_that_is_damaged_is_internal_and_the_log_says_to_restore_it(
    tmp_path: Path, sqlite_template: Path
) -> None:
    file = tmp_path / "jobledger.db"
    file.write_bytes(sqlite_template.read_bytes())
    damage(file, "jobs")
    store = SqlStore(open_database(parse_url(f"sqlite:///{file}")))
    try:
        async with Ledger(store, lambda _: None, max_waiting=10) as ledger:
            with pytest.raises(StoreFault, match=r"damaged.*restore a backup") as refused:
                await apply(ledger, Create(user_id="ada", job_type="render"))
    finally:
        await store.close()
    assert refused.value.kind == "corrupt"
    assert ledger.store_errors["corrupt"] == 1


async def test_a_server_does_not_start_on_a_damaged_file(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path) as server:
        assert await asyncio.to_thread(server.terminate) == 0
    file = tmp_path / "jobledger.db"
    damage(file, "feed")
    with pytest.raises(AssertionError, match="exited with 1") as refused:
        await asyncio.to_thread(ServerProcess(tmp_path).start)
    assert "Error: the database is damaged: stop the server and restore a backup" in str(
        refused.value
    )
    assert "Traceback" not in str(refused.value)


async def test_a_disk_error_is_counted_and_loses_no_change(tmp_path: Path) -> None:
    metrics = f"127.0.0.1:{free_port()}"
    server = ServerProcess(tmp_path, arguments=("--metrics", metrics))
    async with server, calling(server.target) as call:
        pad = {"parameters": {"pad": "x" * 200_000}}
        jobs = [await call.job(**pad)]
        # From now on no file may grow: a write beyond its end fails with EFBIG.
        written = (tmp_path / "jobledger.db-wal").stat().st_size
        unlimited = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (written, unlimited[1]))
        refused = await refusal(call.job(**pad))
        assert refused.code is grpc.StatusCode.UNAVAILABLE
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, unlimited)
        assert await errors_counted(metrics) == {"io": 1}
        jobs.append(await call.job(**pad))
        for job in jobs:
            assert (await call.GetJob(job_id=job.id, user_id="ada", view=BASIC)).job == job


@pytest.mark.timeout(120)
async def test_an_outage_of_postgresql_is_unavailable_and_counted_and_ends_without_a_restart(
    tmp_path: Path,
) -> None:
    """UNAVAILABLE during the outage, recovery without a restart, and the watch continues."""
    from tests.support.databases import migrated

    postgres = await asyncio.to_thread(PostgresServer, durable=False)
    metrics = f"127.0.0.1:{free_port()}"
    try:
        url = await asyncio.to_thread(lambda: migrated(postgres.create_database()))
        server = ServerProcess(tmp_path, database=url, arguments=("--metrics", metrics))
        async with server, calling(server.target) as call:
            job = await call.running()
            watch = call.WatchJob(job_id=job.id, user_id="ada")
            await watch.read()
            for end in (postgres.stop, postgres.kill):
                await asyncio.to_thread(end)
                for called in (
                    call.CreateJob(user_id="ada", job_type="t"),
                    call.GetJob(job_id=job.id, user_id="ada"),
                    call.ListJobs(user_id="ada"),
                    call.UpdateProgress(
                        job_id=job.id, attempt=1, progress={"progress_message": "lost"}
                    ),
                    call.WatchJob(job_id=job.id, user_id="ada").read(),
                ):
                    refused = await refusal(called)
                    assert refused.code is grpc.StatusCode.UNAVAILABLE
                    assert (refused.reason, refused.message) == ("UNAVAILABLE", DOES_NOT_ANSWER)
                    assert "RetryInfo" in refused.details
                await asyncio.to_thread(postgres.start)
                # Each pool finds by itself that its connections are gone: no call fails for it.
                assert (await call.GetJob(job_id=job.id, user_id="ada")).job == job
                report = {"attempt": 1, "progress": {"progress": job.progress + 10}}
                job = (await call.UpdateProgress(job_id=job.id, **report)).job
                while (message := await watch.read()).job != job:
                    pass
            assert (await errors_counted(metrics))["connection"] >= 1
            await asyncio.to_thread(postgres.freeze)
            refused = await refusal(call.job())
            assert refused.message == TOO_SLOW
            assert (await errors_counted(metrics))["timeout"] >= 1
            await asyncio.to_thread(postgres.thaw)
            await call.MarkCompleted(job_id=job.id, attempt=1)
            while (message := await watch.read()).job.status != COMPLETED:
                pass
            assert len(message.transitions) == 1
    finally:
        postgres.thaw()
        postgres.close()


def test_an_sqlite_that_is_too_old_is_refused_with_an_explanation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    with pytest.raises(BadDatabaseUrl, match=r"needs 3\.35 or newer"):
        open_database(parse_url("sqlite:///jobledger.db"))
