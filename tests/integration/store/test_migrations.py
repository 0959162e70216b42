"""The schema comes from its migrations alone, and is the one that the code works with."""

import asyncio
import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint, Connection, MetaData, Table, inspect, text

from jobledger_server.database.file_lock import exclusive
from jobledger_server.database.url import BadDatabaseUrl, parse_url
from jobledger_server.domain.job import (
    AttemptOutcome,
    JobId,
    Payload,
    Payloads,
)
from jobledger_server.sql import schema
from jobledger_server.sql.database import Database, open_database
from jobledger_server.sql.schema import HEAD, SchemaError, migrate, require_supported
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.sql.tables import metadata
from jobledger_server.store import StoreUnavailable
from tests.support.seeding import blanks
from tests.support.shared_postgres import Databases

MIGRATIONS = Path(schema.__file__).parent / "migrations"


EXPRESSIONS = pytest.mark.filterwarnings("ignore:.* expression-based index")
"""SQLAlchemy does not read such an index from SQLite."""


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'new.db'}"
    return request.getfixturevalue("postgres").create_database()


def test_head_is_the_newest_migration() -> None:
    scripts = ScriptDirectory(str(MIGRATIONS))
    assert scripts.get_current_head() == HEAD


@EXPRESSIONS
async def test_the_migrated_schema_is_the_one_in_tables(database: Database) -> None:
    def differences(connection: object) -> list[object]:
        # Not the indexes: SQLAlchemy does not read those with expressions from SQLite.
        opts = {"include_object": lambda _object, _name, kind, *_: kind != "index"}
        return compare_metadata(MigrationContext.configure(connection, opts=opts), metadata)

    async with database.writer.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_the_indexes_in_tables_are_the_migrated_ones(database: Database) -> None:
    """Alembic does not compare the conditions and expressions of indexes, so this does."""
    definitions = (
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        if database.dialect.name == "sqlite"
        else "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
    )

    async def indexes() -> dict[str, str]:
        async with database.writer.connect() as connection:
            found = (await connection.execute(text(definitions))).all()
        return {name: definition for name, definition in found if name != "alembic_version_pkc"}

    migrated = await indexes()
    async with database.writer.begin() as connection:
        if database.dialect.name == "postgresql":
            await connection.execute(text("DROP FUNCTION lock_groups"))  # which returns jobs
        await connection.run_sync(metadata.drop_all)
        await connection.run_sync(metadata.create_all)
    assert await indexes() == migrated


async def test_the_checks_in_tables_are_the_migrated_ones(database: Database) -> None:
    """Alembic does not compare CHECK constraints, so this does."""

    def checks(connection: Connection) -> dict[str, set[str | None]]:
        inspector = inspect(connection)
        return {
            table: {check["name"] for check in inspector.get_check_constraints(table)}
            for table in metadata.tables
        }

    async with database.writer.connect() as connection:
        migrated = await connection.run_sync(checks)
        if database.dialect.name == "sqlite":
            # It keeps the text as it was written.
            rows = await connection.execute(text("SELECT sql FROM sqlite_master WHERE sql <> ''"))
            ddl = " ".join(" ".join(rows.scalars()).split())
            for check in itertools.chain(*map(declared_checks, metadata.tables.values())):
                assert " ".join(str(check.sqltext).split()) in ddl
    assert migrated == {
        name: {check.name for check in declared_checks(table)}
        for name, table in metadata.tables.items()
    }


def declared_checks(table: Table) -> list[CheckConstraint]:
    return [c for c in table.constraints if isinstance(c, CheckConstraint)]


async def test_migrating_again_changes_nothing(database: Database) -> None:
    async with database.writer.connect() as connection:
        before = (await connection.execute(text("SELECT epoch FROM feed"))).scalar_one()
    await migrate(database)
    async with database.writer.connect() as connection:
        assert (await connection.execute(text("SELECT epoch FROM feed"))).scalar_one() == before
    await require_supported(database)


async def test_several_may_migrate_at_once(empty_url: str) -> None:
    databases = [open_database(parse_url(empty_url)) for _ in range(4)]
    await asyncio.gather(*map(migrate, databases))
    for database in databases:
        await require_supported(database)
        await database.close()


async def test_a_database_without_a_schema_is_refused_with_the_command_to_run(
    empty_url: str,
) -> None:
    database = open_database(parse_url(empty_url))
    with pytest.raises(SchemaError, match="run `jobledger-server migrate`"):
        await require_supported(database)
    await database.close()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense-secret", "cannot read the database URL"),
        ("mysql://u:secret@h/n", "cannot use a 'mysql' database"),
        ("sqlite://", "SQLite needs a file"),
        ("sqlite:///:memory:", "SQLite needs a file"),
        ("sqlite:///file:kept.db?uri=true", "a file and nothing else"),
        ("sqlite:///kept.db?timeout=secret", "a file and nothing else"),
        ("sqlite://u:secret@h/kept.db", "a file and nothing else"),
        ("postgresql:/u:secret@h/n", "cannot read the database URL"),
        ("postgresql://u:secret@h:abc/n", "cannot read the database URL"),
        ("postgresql://u:se/cret@h/n", "has more than one @"),
        ("postgresql://u:secret@[::1/n", "cannot read the database URL"),
        ("postgresql://u:12/secret@h/n", "has more than one @"),
        ("postgresql://u:12#secret@h/n", "has more than one @"),
        ("postgresql://u:12?secret=@h/n", "has more than one @"),
        ("postgresql://u:1@secret@h/n", "has more than one @"),
        ("postgresql://u:secret@h:99999/n", "must be from 1 to 65535"),
        ("postgresql://u:secret@h:0/n", "must be from 1 to 65535"),
        ("postgresql://u:secret@/n?host=h&port=abc", "must be from 1 to 65535"),
        ("postgresql://u:secret@h/n?sslmod=require", "unknown parameter 'sslmod'"),
        ("postgresql://u:secret@h/n?password=secret", "unknown parameter 'password'"),
        ("postgresql://u:secret@h/n?sslmode=yes", "sslmode=yes .*: use disable, allow"),
        ("postgresql://u:secret@h/n?sslmode=require&sslmode=allow", "'sslmode' twice"),
        ("postgresql://u:secret@a,b/n", "several hosts: append target_session_attrs=read-write"),
        (
            "postgresql://u:secret@a:1,b:2/n",
            "several hosts: append target_session_attrs=read-write",
        ),
        (
            "postgresql://u:secret@/n?host=a,b",
            "several hosts: append target_session_attrs=read-wri",
        ),
        (
            "postgresql://u:secret@/n?host=a&host=b",
            "several hosts: append target_session_attrs=rea",
        ),
        ("postgresql://u:secret@a,b/n?target_session_attrs=any", "several hosts: append"),
        ("postgresql://u:secret@h/n?target_session_attrs=master", "=master .*: use any, primary"),
        ("postgresql://u:secret@h/n?host=other", "hosts before and after its"),
        ("postgresql://u:secret@/n?host=a,b,c&port=1,2", "3 hosts and 2 ports: write one port"),
        ("postgresql://u:secret@a:x,b/n?target_session_attrs=primary", "must be from 1 to 65535"),
        ("postgresql://u:secret@a,,b/n?target_session_attrs=primary", "NAME, NAME:PORT or"),
        ("postgresql://u:a,b/secret@h/n", "has more than one @"),
        ("postgresql://u:secret@h/n?sslrootcert=/none", "sslrootcert=/none .*: No such file"),
        (f"postgresql://u:secret@h/n?sslrootcert={__file__}", "sslrootcert=.*: .*certificate"),
        ("postgresql://u:secret@h/n?sslcrl=/none", "sslcrl=/none .*: No such file"),
        ("postgresql://u:secret@h/n?sslcert=/none&sslpassword=secret", "sslcert=/none .*: No such"),
    ],
)
def test_a_bad_url_is_refused_with_what_to_write_and_not_repeated(url: str, words: str) -> None:
    with pytest.raises(BadDatabaseUrl, match=words) as caught:
        open_database(parse_url(url))
    assert "secret" not in str(caught.value)


async def test_the_parameters_of_libpq_are_understood(postgres: Databases) -> None:
    url = postgres.create_database()
    found = []
    for parameters in ("sslmode=disable", "sslmode=prefer", "sslmode=require"):
        database = open_database(parse_url(f"{url}?{parameters}"))
        try:
            await migrate(database)
            await require_supported(database)
        except StoreUnavailable as error:
            found.append(str(error))
        await database.close()
    # This one has no TLS: the last is refused by the driver, after it asked.
    (refused,) = found
    assert "SSL" in refused
    assert "sslmode" not in refused  # a URL is shown without its parameters


LONGEST = 6.0
"""Seconds: longer than a statement of a server may take, on either database."""


async def hold(url: str, taken: asyncio.Event, release: asyncio.Event) -> None:
    """Hold what a migration has to wait for."""
    database = open_database(parse_url(url))
    async with database.writer.begin() as connection:
        if database.dialect.name == "postgresql":
            lock = f"SELECT pg_advisory_xact_lock({schema.MIGRATION_LOCK})"
            await connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            await connection.execute(text(lock))
        taken.set()
        await release.wait()
    await database.close()


@pytest.mark.slow
async def test_a_migration_waits_for_as_long_as_it_takes(database_url: str) -> None:
    taken, release = asyncio.Event(), asyncio.Event()
    holding = asyncio.create_task(hold(database_url, taken, release))
    await taken.wait()
    program = Path(sys.executable).with_name("jobledger-server")
    arguments = ("migrate", "--database", database_url)
    process = await asyncio.create_subprocess_exec(program, *arguments, stderr=subprocess.PIPE)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(process.wait(), LONGEST)
    release.set()
    _, errors = await process.communicate()
    await holding
    assert (process.returncode, errors) == (0, b"")


@pytest.mark.slow
async def test_a_long_statement_of_a_migration_is_not_cut(postgres: Databases) -> None:
    url = parse_url(postgres.create_database())
    for seconds in (None, 1):
        database = open_database(url, seconds=seconds)
        async with database.writer.connect() as connection:
            sleeping = connection.execute(text("SELECT pg_sleep(2)"))
            if seconds is None:
                await sleeping
            else:
                with pytest.raises(TimeoutError):
                    await sleeping
        await database.close()


def test_an_unusable_file_is_named_before_anything_is_opened(tmp_path: Path) -> None:
    url = parse_url(f"sqlite:///{tmp_path}/nowhere/x.db")
    with pytest.raises(StoreUnavailable, match=r"nowhere/x.db: No such file"), exclusive(url):
        pass


async def test_an_unusable_database_is_named_without_its_password() -> None:
    database = open_database(parse_url("postgresql://u:secret@127.0.0.1:1/n"))
    with pytest.raises(StoreUnavailable, match=r"postgresql://u:\*{3}@127.0.0.1:1/n: ") as caught:
        await require_supported(database)
    assert "secret" not in str(caught.value)
    await database.close()


# What a database of revision 0001 may hold. It is not changed with later revisions: those have
# to carry it over. A column that is not named here is blank.
A, B, C, D, X = (f"00000000-0000-7000-8000-00000000000{digit}" for digit in "abcde")
JOB = {
    "user_id": "ada",
    "job_type": "render",
    "status": "QUEUED",
    "phase": 0,
    "queue_id": 1,
    "priority": 4,
    "fairness_key": "t",
    "concurrency_key": "",
    "unique_key": "",
    "progress": 0,
    "progress_message": "",
    "labels": {"team": "red"},
    "attempt": 0,
    "started_by_id": False,
    "refuse_output": False,
    "silent": 24,
    "retention": 9,
    "max_attempts": 3,
    "initial_backoff": 1_000_000,
    "max_backoff": 300_000_000,
    "backoff_multiplier": 2.0,
    "releases": 0,
    "quick_releases": 0,
    "updates": 0,
    "worker_id": "",
    "request_id": "",
    "traceparent": "",
    "create_time": 1_000_000,
    "update_time": 1_000_000,
    "queue_timeout": 60_000_000,
    "cancel_reason": "",
    "version": 1,
    "parameters_bytes": 0,
    "report_number": 0,
    "checkpoint_bytes": 0,
    "asset_count": 0,
    "asset_bytes": 0,
    "outcome_bytes": 0,
}
START = {
    "start_actor": "w1",
    "start_worker_id": "w1",
    "start_progress": 0,
    "start_progress_message": "",
    "start_lease_expire_time": 32_000_000,
}
STARTED = {
    "attempt": 2,
    "releases": 1,
    "worker_id": "w1",
    "start_time": 2_000_000,
    "attempt_time": 2_200_000,
}
ROWS: dict[str, list[dict[str, object]]] = {
    "jobs": [
        JOB
        | {
            "id": A,
            "origin_job_id": D,
            "schedule_time": 2_000_000,
            "phase": 2,
            "concurrency_key": "stripe:eu",
            "unique_key": "once",
            "queue_expire_time": 62_000_000,
            "deadline": 62_000_000,
            "change_seq": 1,
            "parameters_bytes": 2,
        },
        JOB
        | STARTED
        | {
            "id": B,
            "status": "PROCESSING",
            "progress": 40,
            "progress_message": "half",
            "checkpoint_bytes": 2,
            "request_id": "r",
            "last_error_reason": "LEASE_EXPIRED",
            "last_error_message": "worker 'w0' lost its lease",
            "lease_duration": 30_000_000,
            "lease_expire_time": 32_000_000,
            "phase": 3,
            "deadline": 32_000_000,
            **START,
            "start_seq": 2,
            "change_seq": 3,
            "version": 3,
        },
        JOB
        | STARTED
        | {
            "id": C,
            "status": "PARTIAL",
            "progress": 100,
            "complete_time": 3_000_000,
            "phase": None,
            "error_reason": "SOME_LEFT",
            "error_message": "some are left",
            "outcome_bytes": 4,
            "asset_count": 1,
            "asset_bytes": 43,
            "result": b"\x0a\x02",
            "error_details": b"\x0a\x01",
            **START,
            "start_seq": 4,
            "end_actor": "w1",
            "change_seq": 5,
            "version": 3,
        },
        JOB
        | {
            "id": D,
            "status": "FAILED",
            "complete_time": 3_000_000,
            "phase": None,
            "error_reason": "CANCELLED",
            "error_message": "enough",
            **START,
            "start_worker_id": "",
            "start_lease_expire_time": None,
            "start_seq": 6,
            "end_actor": "ada",
            "change_seq": 7,
            "version": 3,
            "delete_seq": 8,
            "delete_time": 4_000_000,
        },
    ],
    "payloads": [
        {"job_id": A, "kind": 1, "content": b"\x0a\x00"},
        {"job_id": B, "kind": 2, "content": b"\x0a\x03"},
    ],
    "attempts": [
        {
            "job_id": B,
            "number": 1,
            "worker_id": "w0",
            "start_time": 2_000_000,
            "progress": 10,
            "end_time": 2_100_000,
            "outcome": "LEASE_EXPIRED",
            "error_reason": "LEASE_EXPIRED",
            "error_message": "worker 'w0' lost its lease",
        }
    ],
    "assets": [
        {
            "id": X,
            "job_id": C,
            "asset_type": "image/png",
            "url": "https://e.example/x.png",
            "storage_path": "x.png",
            "file_size": 7,
            "create_time": 2_500_000,
            "request_id": "q",
            "name": "x.png",
            "sha256": "",
            "etag": "tag",
            "attempt": 2,
        }
    ],
    "queues": [
        {"id": 1, "job_type": "render", "priority": 4, "fairness_key": "t", "vtime": 8}
        | {"claimed": 2, "claimable": 0, "ready": 0, "blocked": 0, "scheduled": 1, "held": 1}
        | {"waiting": 0}
    ],
    "limit_keys": [
        {"key": "stripe:eu", "name": "stripe", "running": 3, "blocked": 2, "recheck": 1}
    ],
    "ended": [
        {"job_type": "render", "time": 0, "status": "FAILED", "reason": "CANCELLED", "count": 1}
    ],
    "limit_rules": [
        {"name": "stripe", "max_running": 3, "pause_time": 5, "pause_actor": "o"}
        | {"pause_reason": "why"}
    ],
    "paused_types": [
        {"job_type": "render", "pause_time": 5, "pause_actor": "o", "pause_reason": "why"}
    ],
    "type_defaults": [
        {"job_type": "render", "max_attempts": 1, "initial_backoff": 2, "max_backoff": 3}
        | {"backoff_multiplier": 1.5, "queue_timeout": 4, "run_timeout": 5, "stall_timeout": 6}
        | {"priority": 0, "retention": 7}
    ],
    "pollers": [{"server": "s", "job_type": "render", "expire_time": 9}],
    "changes": [
        {"seq": seq, "job_id": job_id, "user_id": "ada"}
        for seq, job_id in enumerate((A, B, B, C, C, D, D, D), start=1)
    ],
}


def upgraded_to(revision: str) -> Callable[[Connection], None]:
    def upgrade(connection: Connection) -> None:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(MIGRATIONS))
        command.upgrade(config, revision)

    return upgrade


def populate(connection: Connection) -> None:
    for table, rows in ROWS.items():
        columns = Table(table, MetaData(), autoload_with=connection)
        for row in rows:
            connection.execute(columns.insert().values(blanks(columns, row) | row))


def held(connection: Connection) -> dict[str, list[dict[str, object]]]:
    """Return what is there of each row that was written at the first revision."""
    found = {}
    for table, rows in ROWS.items():
        columns = Table(table, MetaData(), autoload_with=connection)
        keys = [column.name for column in columns.primary_key]
        there = {
            tuple(row[key] for key in keys): row
            for row in connection.execute(columns.select()).mappings()
        }
        assert len(there) == len(rows)
        found[table] = [
            {name: there[tuple(row[key] for key in keys)][name] for name in row} for row in rows
        ]
    return found


@EXPRESSIONS
async def test_a_populated_database_keeps_its_values_through_every_migration(
    empty_url: str,
) -> None:
    scripts = ScriptDirectory(str(MIGRATIONS))
    first, *later = [script.revision for script in scripts.walk_revisions()][::-1]
    database = open_database(parse_url(empty_url))
    async with database.writer.begin() as connection:
        await connection.run_sync(upgraded_to(first))
        await connection.run_sync(populate)
    for revision in later:
        async with database.writer.begin() as connection:
            await connection.run_sync(upgraded_to(revision))
            assert await connection.run_sync(held) == ROWS, revision
    await migrate(database)
    async with database.writer.connect() as connection:
        assert await connection.run_sync(held) == ROWS

    store = SqlStore(database)
    stored = await store.read_jobs([JobId(job_id) for job_id in (A, B, C, D)], full=True)
    summary = {
        job_id: (found.job.status.value, found.payloads, found.job.labels, len(found.transitions))
        for job_id, found in stored.items()
    }
    labels = {"team": "red"}
    assert summary == {
        A: ("QUEUED", Payloads(parameters=Payload(b"\x0a\x00")), labels, 0),
        B: ("PROCESSING", Payloads(checkpoint=Payload(b"\x0a\x03")), labels, 1),
        C: (
            "PARTIAL",
            Payloads(result=Payload(b"\x0a\x02"), error_details=Payload(b"\x0a\x01")),
            labels,
            2,
        ),
    }
    ended = await store.list_attempts(JobId(B), after=0, limit=10)
    assert [attempt.outcome for attempt in ended] == [AttemptOutcome.LEASE_EXPIRED]
    page = await store.changes_after(5, limit=10)
    assert [(change.seq, change.deleted) for change in page.changes] == [
        (6, False),
        (7, False),
        (8, True),
    ]
    await database.close()
