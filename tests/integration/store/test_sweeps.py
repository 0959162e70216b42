"""What the sweeper deletes: counters of what is idle, and nothing that anybody still needs."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import text

from jobledger_server.check.invariants import violations
from jobledger_server.domain.commands import ChangeStatus
from jobledger_server.domain.job import Job, JobStatus, Micros
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.maintenance.sweeper import Sweeper
from jobledger_server.sql import store_connections, sweeps
from jobledger_server.sql.database import Database
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.store import CountedLevel
from jobledger_server.tuning import Tuning
from tests.support.databases import execute, several_servers
from tests.support.ledger_calls import apply, claim, claim_jobs, created
from tests.support.tasks import running

LEASE = Micros(60_000_000)

SMALL = Tuning(sweep_rows=2)
"""With it a pass has several steps."""


async def claimed(ledger: Ledger, count: int = 1) -> list[Job]:
    return list(await claim_jobs(ledger, claim(max_jobs=count)))


async def created_and_claimed(ledger: Ledger, tenant: str = "ada", **fields: Any) -> Job:
    await created(ledger, user_id=tenant, **fields)
    (job,) = await claimed(ledger)
    return job


async def ended(ledger: Ledger, job: Job) -> None:
    await apply(
        ledger, ChangeStatus(job_id=job.id, target=JobStatus.COMPLETED, attempt=job.attempt)
    )


async def swept(store: SqlStore, tuning: Tuning = Tuning()) -> None:
    await pass_of(Sweeper(store, tuning))


async def pass_of(sweeper: Sweeper) -> None:
    for each in sweeper.passes:
        async for _ in each():
            pass


async def rows(database: Database, statement: str) -> list[Any]:
    async with database.reader.connect() as connection:
        return [tuple(row) for row in await connection.execute(text(statement))]


async def counters(database: Database) -> dict[str, int]:
    tables = {
        "levels": "queues WHERE fairness_key = ''",
        "queues": "queues WHERE fairness_key <> ''",
        "limit_keys": "limit_keys",
    }
    return {
        name: (await rows(database, f"SELECT count(*) FROM {rows_of}"))[0][0]
        for name, rows_of in tables.items()
    }


async def test_counters_of_what_is_idle_go_and_all_others_stay(
    store: SqlStore, database: Database, ledger: Ledger
) -> None:
    for tenant in ("ada", "bob", "cyd"):
        await created(ledger, user_id=tenant, priority=1, concurrency_key=tenant)
    for job in await claimed(ledger, 3):
        await ended(ledger, job)
    waiting = await created(ledger, user_id="dan", concurrency_key="stripe")
    held = (await claimed(ledger))[0]
    assert held.id == waiting.id
    await execute(database, "UPDATE limit_keys SET recheck = 0")  # as the promoter does
    assert await counters(database) == {"levels": 2, "queues": 4, "limit_keys": 4}
    await swept(store, SMALL)
    assert await counters(database) == {"levels": 1, "queues": 1, "limit_keys": 1}
    await ended(ledger, held)
    await execute(database, "UPDATE limit_keys SET recheck = 0")
    await swept(store, SMALL)
    assert await counters(database) == {"levels": 0, "queues": 0, "limit_keys": 0}
    assert await violations(database) == []
    assert [job.user_id for job in await claimed(ledger)] == []
    await created(ledger)
    await swept(store, SMALL)
    assert [job.user_id for job in await claimed(ledger)] == ["ada"]
    assert await violations(database) == []


async def test_a_pass_looks_at_the_levels_that_follow_those_of_the_pass_before(
    store: SqlStore, database: Database, ledger: Ledger
) -> None:
    for job_type in ("a", "b", "c"):
        await created(ledger, job_type=job_type)
    await ended(ledger, await created_and_claimed(ledger))
    sweeper = Sweeper(store, SMALL)
    for left in (4, 3):
        await pass_of(sweeper)
        assert (await counters(database))["levels"] == left


async def test_tenants_that_come_once_leave_no_queues_where_a_level_never_advances(
    store: SqlStore, database: Database, ledger: Ledger
) -> None:
    """Each begins where the level is, so none of their starts advances it."""
    held = await created_and_claimed(ledger, "held")
    for number in range(9):
        await ended(ledger, await created_and_claimed(ledger, f"once-{number}"))
    assert await rows(database, "SELECT vtime FROM queues WHERE fairness_key = ''") == [(0,)]
    await swept(store, SMALL)
    assert await rows(database, "SELECT fairness_key FROM queues WHERE fairness_key <> ''") == [
        (held.user_id,)
    ]
    assert await violations(database) == []


@pytest.mark.parametrize(("ahead", "next_tenants"), [(1, "bob ada bob"), (2, "bob bob ada")])
async def test_a_tenant_gains_one_start_at_most_by_a_sweep(
    store: SqlStore, database: Database, ledger: Ledger, ahead: int, next_tenants: str
) -> None:
    """A queue that is further ahead of its level stays as long as others wait there."""
    for _ in range(3):
        await created(ledger)
    held = await claimed(ledger, 3)
    await created(ledger, user_id="bob")
    for job in held:
        await ended(ledger, job)
    # Two servers that claim at the same time from a queue may leave it more than one start ahead.
    first = (await rows(database, "SELECT vtime FROM queues WHERE fairness_key = ''"))[0][0]
    await execute(database, f"UPDATE queues SET vtime = {first + ahead} WHERE fairness_key = 'ada'")
    await swept(store)
    await created(ledger)
    await created(ledger, user_id="bob")
    goes_next = [(await claimed(ledger))[0].user_id for _ in range(3)]
    assert goes_next == next_tenants.split()


async def test_each_table_is_swept_at_its_own_pace(
    store: SqlStore, database: Database, ledger: Ledger
) -> None:
    """A pass over millions of queues takes hours, in which the other tables grow, too."""
    for tenant in ("ada", "bob", "cyd"):
        await created(ledger, user_id=tenant)  # no row of this step is idle, so a pause follows
    await execute(
        database,
        "INSERT INTO ended VALUES ('render', 0, 'FAILED', 'X', 1)",
        "INSERT INTO limit_keys VALUES ('stripe', 'stripe', 0, 0, 0)",
        "INSERT INTO pollers (server, job_type, expire_time) VALUES ('here', 'render', 0)",
    )
    tuning = Tuning(sweep_rows=2, sweep_seconds=0.01, sweep_step_seconds=3600)
    async with running(Sweeper(store, tuning).run()) as sweeping, asyncio.timeout(20):
        for table in ("ended", "limit_keys", "pollers"):
            while await rows(database, f"SELECT 1 FROM {table}"):
                assert not sweeping.done()
                await asyncio.sleep(0.01)


async def test_what_becomes_busy_between_the_look_and_the_deletion_stays(
    store: SqlStore, database: Database, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ended(ledger, await created_and_claimed(ledger, concurrency_key="stripe"))
    await execute(database, "UPDATE limit_keys SET recheck = 0")
    (level,) = await store.sweeps.levels(after=("", 0), limit=10)
    assert level == CountedLevel("render", 5, level.writes, idle=True)
    delete = sweeps.SqlSweeps._write  # noqa: SLF001

    async def late(self: Any, statement: Any, found: Any) -> int:
        assert found
        if not await rows(database, "SELECT 1 FROM jobs WHERE phase IS NOT NULL"):
            await created(ledger, concurrency_key="stripe")
            assert len(await claimed(ledger)) == 1
        return await delete(self, statement, found)

    monkeypatch.setattr(sweeps.SqlSweeps, "_write", late)
    assert (await store.sweeps.queues(after=None, limit=10)).deleted == 0
    assert await store.sweeps.delete_levels([level]) == 0
    monkeypatch.undo()
    assert await store.sweeps._write(sweeps.DELETE_KEYS, ["stripe"]) == 0  # noqa: SLF001
    assert await violations(database) == []


async def test_a_level_stays_that_was_written_to_since_even_if_it_is_idle_again(
    store: SqlStore, ledger: Ledger, database: Database
) -> None:
    """It has a queue that this pass may have missed, with a virtual time that others lack."""
    await ended(ledger, await created_and_claimed(ledger))
    (level,) = await store.sweeps.levels(after=("", 0), limit=10)
    await ended(ledger, await created_and_claimed(ledger, "bob"))
    assert await store.sweeps.delete_levels([level]) == 0
    assert await counters(database) == {"levels": 1, "queues": 2, "limit_keys": 0}


@several_servers
async def test_a_creation_that_waits_for_a_sweep_begins_its_queue_where_its_level_begins(
    store: SqlStore, ledger: Ledger, database: Database
) -> None:
    """Its statement still sees the level that the sweep deletes before it goes on."""
    for _ in range(5):
        await created_and_claimed(ledger)
    for (job_id,) in await rows(database, "SELECT id::text FROM jobs"):
        await apply(ledger, ChangeStatus(job_id=job_id, target=JobStatus.COMPLETED, attempt=1))
    async with database.writer.connect() as connection, connection.begin():
        await connection.execute(store_connections.LOCK_FEED)
        creating = asyncio.create_task(created(ledger, user_id="bob"))
        waits = (
            "SELECT 1 FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        async with asyncio.timeout(20):
            while not await rows(database, waits):
                pass
        await connection.execute(text("DELETE FROM queues"))
    await creating
    assert await rows(database, "SELECT vtime FROM queues WHERE fairness_key <> ''") == [(4,)]
    assert await rows(database, "SELECT vtime FROM queues WHERE fairness_key = ''") == [(4,)]
    assert await violations(database) == []


async def test_counts_of_ended_jobs_and_records_of_pollers_expire(
    store: SqlStore, database: Database, ledger: Ledger
) -> None:
    await ended(ledger, await created_and_claimed(ledger))
    ((now,),) = await rows(database, "SELECT time FROM ended")
    hour, minute = 3_600_000_000, 60_000_000  # the sweep is over in less than that
    for age in (hour - minute, *range(hour + 20_000_000, hour + 70_000_000, 10_000_000)):
        await execute(
            database, f"INSERT INTO ended VALUES ('render', {now - age}, 'FAILED', 'X', 1)"
        )
    await store.record_pollers("here", ["render", "export"], lasts=LEASE)
    await store.record_pollers("there", ["export", "import"], lasts=Micros(-1))
    await swept(store, SMALL)
    kept = [time for (time,) in await rows(database, "SELECT time FROM ended ORDER BY time")]
    assert kept == [now - hour + minute, now]
    polled = "SELECT server, job_type FROM pollers ORDER BY job_type"
    assert await rows(database, polled) == [("here", "export"), ("here", "render")]
    await store.record_pollers("here", ["render"], lasts=Micros(-1))  # replaces the earlier one
    await swept(store, SMALL)
    assert await rows(database, polled) == [("here", "export")]


async def test_a_sweep_that_finds_nothing_idle_locks_nothing(
    store: SqlStore, database: Database, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await created(ledger)

    monkeypatch.setattr(store_connections, "LOCK_FEED", text("this is no statement"))
    await swept(store)


@pytest.mark.usefixtures("damaged")
async def test_blocked_jobs_that_wait_for_nothing_are_found(
    store: SqlStore, database: Database, ledger: Ledger
) -> None:
    """The server that raised the limits died before it had marked their keys."""
    limits = store.queue_settings
    for name in ("free", "paused", "busy"):
        await limits.set_limit(name, 1)
        for _ in range(2):
            await created(ledger, concurrency_key=name)
    held = await claimed(ledger, 6)
    assert sorted(job.concurrency_key for job in held) == ["busy", "free", "paused"]
    await limits.pause_key("paused", actor="ops", reason="")
    for job in held:
        if job.concurrency_key != "busy":
            await ended(ledger, job)
    # As it was before the end of the held job gave its slot away.
    await execute(database, "UPDATE jobs SET phase = 1 WHERE phase = 0")
    await execute(database, "UPDATE limit_keys SET recheck = 0, blocked = 1")
    await swept(store, SMALL)  # there are more keys than a step reads
    marked = "SELECT key FROM limit_keys WHERE recheck = 1"
    assert await rows(database, marked) == [("free",)]
