"""Each index is used by a statement, and each statement that may be slow uses one."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from jobledger_server.domain.commands import (
    AppendOutput,
    Cancel,
    ChangeStatus,
    Create,
    Delete,
    LinkAsset,
    NewGroup,
    Report,
    Seal,
)
from jobledger_server.domain.job import (
    AssetId,
    AssetLink,
    Instant,
    JobId,
    JobStatus,
    Micros,
    Payload,
    Phase,
    first_id,
)
from jobledger_server.domain.type_defaults import TypeDefaults
from jobledger_server.ledger.claim_waiters import ClaimWaiters
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.maintenance.promoter import Promoter
from jobledger_server.maintenance.reaper import Reaper
from jobledger_server.maintenance.unblocker import Unblocker
from jobledger_server.sql.database import Database
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.sql.tables import PHASES, queues
from jobledger_server.store import START_OF_ACTIVE, JobQuery
from jobledger_server.webhook_store import Webhook
from tests.support.counted import Counted, counting
from tests.support.ledger_calls import apply, claim, claim_jobs
from tests.support.query_plans import plan
from tests.support.seeding import seed, seeded_id

OF_ONE_ROW = {"pk_feed", "alembic_version_pkc", "sqlite_autoindex_alembic_version_1"}
"""Indexes of tables with one row."""

LARGE = (
    *("jobs", "payloads", "attempts", "changes", "assets", "queues", "ended", "limit_keys"),
    "outputs",
)
"""Tables that no statement may read from end to end."""

INDEXES = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'index'",
    "postgresql": "SELECT indexname FROM pg_indexes WHERE schemaname = 'public'",
}

# What PostgreSQL would choose in a large table.
SETTINGS = ("enable_seqscan", "enable_bitmapscan", "enable_hashjoin", "enable_mergejoin")


async def do_everything(ledger: Ledger, store: SqlStore) -> None:
    """Run each statement of the store, with a few jobs and a request id for each kind."""
    jobs = [
        (await apply(ledger, Create(user_id="ada", job_type="t", request_id=f"r{n}"))).job
        for n in range(4)
    ]
    await apply(ledger, Create(user_id="ada", job_type="t", request_id="r0"))
    await apply(ledger, Create(user_id="ada", job_type="later", schedule_time=Instant(1)))
    for _ in range(2):
        unique = {"concurrency_key": "k", "unique_key": "u", "return_existing": True}
        ledger.known_limits.saw("k", full=True)
        await apply(ledger, Create(user_id="ada", job_type="t", **unique))
    for _ in range(2):
        await apply(ledger, Create(user_id="ada", job_type="t", origin_job_id=jobs[0].id))
    group = (await apply(ledger, Create(user_id="ada", job_type="t", group=NewGroup()))).job
    await apply(ledger, Create(user_id="ada", job_type="t", group_id=group.id))
    (job,) = await claim_jobs(ledger, claim("t"))
    for command in (
        ChangeStatus(job_id=jobs[1].id, target=JobStatus.PROCESSING, worker_id="w"),
        Report(job_id=job.id, attempt=1, progress=1, checkpoint=Payload(b"c")),
        Report(job_id=job.id, attempt=1),
        LinkAsset(job_id=job.id, link=AssetLink("t", "", "p", 1, "p"), request_id="a"),
        LinkAsset(job_id=job.id, link=AssetLink("t", "", "p", 1, "p"), request_id="a"),
        *(AppendOutput(job_id=job.id, attempt=1, data=b"x", number=n) for n in range(1, 12)),
        ChangeStatus(job_id=job.id, target=JobStatus.COMPLETED, attempt=1),
        Cancel(job_id=jobs[2].id, user_id="ada"),
        Delete(job_id=job.id, user_id="ada"),
        Seal(job_id=group.id, user_id="ada"),
    ):
        await apply(ledger, command)
    for full in (False, True):
        await store.read_jobs([jobs[1].id], full=full)
    first = JobId(seeded_id(1))
    for query in (
        JobQuery(user_id=None),
        JobQuery(user_id="ada"),
        JobQuery(user_id="ada", labels={"k": "v"}, created_after=jobs[0].create_time),
        JobQuery(user_id="ada", error_reasons=frozenset({"X"}), held=False, not_rerun=True),
        JobQuery(user_id="ada", cancelled=False),
        JobQuery(user_id="ada", origin_job_id=jobs[0].id, uncancelled=True),
        JobQuery(user_id="ada", unique_key="u", statuses=frozenset({JobStatus.QUEUED})),
        JobQuery(user_id="ada", request_id="r1", worker_id="w"),
        JobQuery(user_id="ada", concurrency_key="k", phases=frozenset({Phase.READY})),
        JobQuery(user_id="ada", group_id=group.id),
    ):
        await store.list_jobs(query, before=first, limit=5)
    await store.outputs.read([(jobs[1].id, "", 0), (jobs[0].id, "log", 5)], limit=5)
    await store.outputs.piece_at(jobs[1].id, "", 5)
    await store.outputs.tail(jobs[1].id, "")
    await store.read_assets([jobs[1].id])
    await store.list_assets(jobs[1].id, after=AssetId(first_id(jobs[0].create_time)), limit=5)
    await store.list_attempts(jobs[1].id, after=0, limit=5)
    await Reaper(ledger).reap()
    await store.news(["t"])
    waiters = ClaimWaiters()
    await Promoter(store, ledger, waiters).promote()
    await Unblocker(store, ledger, waiters).unblock()
    for user_id in (None, "ada"):
        await store.changes_after(0, limit=50_000, user_id=user_id)
        await store.active_jobs(START_OF_ACTIVE, until=10**6, limit=5, user_id=user_id)
    await store.active_jobs(START_OF_ACTIVE, until=10**6, limit=5, ids=[jobs[1].id])
    await store.find_purgeable(Micros(0), after=0, limit=5)
    await store.find_outlived(limit=5)
    await store.compact_deletions(Micros(0), limit=5)


async def operate(store: SqlStore, job_id: JobId) -> None:
    """Run each statement about queues, for operators and in the background."""
    settings = store.queue_settings
    await settings.set_limit("k", 1)
    await settings.pause_key("k", actor="o", reason="")
    await settings.pause_type("t", actor="o", reason="")
    await settings.limits(after="", limit=5)
    await settings.set_type_defaults("t", TypeDefaults(priority=1))
    await settings.type_defaults(after="", limit=5)
    await store.record_pollers("s", ["t"], lasts=Micros(10**9))
    for filters in ({}, {"job_types": ["t"]}, {"fairness_key": "ada"}):
        await store.queue_reports.stats(limit=5, **filters)
    await store.queue_reports.wait_facts(job_id, user_id=None)
    await settings.resume_key("k")
    await settings.resume_type("t")
    sweeps = store.sweeps
    await sweeps.delete_levels(await sweeps.levels(after=("", 0), limit=5))
    await sweeps.queues(after=1, limit=5)
    await sweeps.keys(after="", limit=5)
    await sweeps.ended(Micros(0), limit=5)
    await sweeps.pollers()
    await store.webhooks.leave("d")
    await store.webhooks.add(
        Webhook(
            id=job_id,
            user_id="ada",
            url="https://example.com/",
            job_types=[],
            labels={},
            transitions=(),
            secret="whsec_",
            cursor="",
            request_id="r",
        )
    )
    await store.webhooks.remove(job_id, user_id="")


async def many_tenants(database: Database) -> None:
    """Write idle queues: of a few PostgreSQL would read all."""
    empty = dict.fromkeys(("vtime", "claimed", "claimable", *PHASES), 0)
    rows = [{"job_type": "t", "priority": 0, "fairness_key": f"f{n}", **empty} for n in range(500)]
    async with database.writer.begin() as connection:
        await connection.execute(queues.insert(), rows)
        await connection.execute(text("ANALYZE"))


@pytest.fixture
async def counted_all(
    monkeypatch: pytest.MonkeyPatch, database: Database
) -> AsyncIterator[Counted]:
    with counting(database, monkeypatch) as counted:
        yield counted


async def test_the_indexes_are_those_that_the_plans_of_all_statements_use(
    counted_all: Counted, database: Database, store: SqlStore, ledger: Ledger
) -> None:
    await seed(database, 2000, user_id="bob")
    await many_tenants(database)
    counted_all.reset()
    await do_everything(ledger, store)
    await operate(store, seeded_id(1))
    await store.find_held("w", ["t"], limit=9)
    done = list(zip(counted_all.statements, counted_all.values, strict=True))
    plans: dict[str, str] = {}
    for statement, values in done:
        if statement.lstrip().startswith(("SELECT", "UPDATE", "DELETE", "INSERT", "WITH")):
            plans[statement] = await plan(database, statement, values, *SETTINGS)
    async with database.reader.connect() as connection:
        there = set((await connection.execute(text(INDEXES[database.dialect.name]))).scalars())
    used = {index for index in there for found in plans.values() if f" {index} " in found}
    assert there - OF_ONE_ROW == used
    for statement, found in plans.items():
        for table in LARGE:
            assert f"Seq Scan on {table} " not in found, statement
            assert f"SCAN {table}\n" not in f"{found}\n", statement
