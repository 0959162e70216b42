"""The lookout: what there is to do is found at every server, and claims are woken for it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from jobledger_server.app import App
from jobledger_server.ledger.claim_waiters import ClaimWaiters
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.ledger.outages import Outages
from jobledger_server.maintenance.lookout import Lookout
from jobledger_server.maintenance.promoter import Promoter
from jobledger_server.sql.database import Database
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.store import FeedHead, StoreUnavailable
from jobledger_server.telemetry.rate_limiter import RateLimiter
from jobledger_server.tuning import Tuning
from tests.support.databases import execute, several_servers, sqlite_only
from tests.support.lookouts import lookout
from tests.support.rpc_caller import calling
from tests.support.seeding import seed
from tests.support.tasks import running

SECONDS = 20
"""For what happens at once, or never."""

TYPES = Tuning().awaited_types


async def test_a_lost_wake_up_is_made_up_for_and_only_as_many_are_woken_as_there_are_jobs(
    store: SqlStore, ledger: Ledger, database: Database
) -> None:
    await seed(database, 3, job_type="render")
    waiters = ClaimWaiters()
    with ExitStack() as stack:
        waiting = [stack.enter_context(waiters.waiting(["render"])) for _ in range(5)]
        await lookout(store, ledger, waiters).look()
        assert [waiter.woken_for for waiter in waiting] == ["render"] * 3 + [None] * 2


async def test_claims_of_a_paused_type_are_not_woken_until_it_goes_on(
    store: SqlStore, ledger: Ledger, database: Database
) -> None:
    await seed(database, 3, job_type="render")
    waiters = ClaimWaiters()
    looking = lookout(store, ledger, waiters)
    await execute(
        database,
        "INSERT INTO paused_types VALUES ('render', 1, 'o', '')",
        "UPDATE feed SET config_version = config_version + 1",
    )
    with waiters.waiting(["render"]) as waiter:
        await looking.look()
        assert waiter.woken_for is None
        await execute(
            database,
            "DELETE FROM paused_types",
            "UPDATE feed SET config_version = config_version + 1",
        )
        await looking.look()
        assert waiter.woken_for == "render"


@sqlite_only
async def test_each_query_names_a_bounded_number_of_types(
    store: SqlStore, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    news = SqlStore.news

    async def counted(self: SqlStore, job_types: list[str]) -> object:
        asked.append(len(job_types))
        return await news(self, job_types)

    monkeypatch.setattr(SqlStore, "news", counted)
    waiters = ClaimWaiters()
    with waiters.waiting([f"t{number}" for number in range(2 * TYPES + 1)]):
        await lookout(store, ledger, waiters).look()
    assert asked == [TYPES, TYPES, 1]


@pytest.fixture
async def following() -> AsyncIterator[Callable[[Lookout], None]]:
    """Have lookouts follow what other servers say, until the end of the test."""
    tasks: list[asyncio.Task[None]] = []

    def follow(looking: Lookout) -> None:
        tasks.append(asyncio.create_task(looking.follow()))

    yield follow
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


@sqlite_only
async def test_other_servers_that_always_say_that_jobs_are_ready_cause_few_queries(
    store: SqlStore,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    following: Callable[[Lookout], None],
) -> None:
    """One for each part of the types, and then none for as long as the pause is."""
    queries, looked = 0, asyncio.Event()
    waiters = ClaimWaiters()
    news = SqlStore.news

    async def counted(self: SqlStore, job_types: list[str]) -> object:
        nonlocal queries
        queries += 1
        waiters.ready_elsewhere.set()
        found = await news(self, job_types)
        if queries == 10:
            looked.set()
        return found

    monkeypatch.setattr(SqlStore, "news", counted)
    with waiters.waiting([f"t{number}" for number in range(10 * TYPES)]):
        tuning = Tuning(wake_seconds=3600, look_seconds=3600)
        following(lookout(store, ledger, waiters, tuning=tuning))
        waiters.ready_elsewhere.set()
        await looked.wait()
        for _ in range(20):  # in which the lookout could look as often
            await store.feed_head()
    assert queries == 10


async def test_what_another_server_says_during_the_pause_is_heard(
    store: SqlStore,
    ledger: Ledger,
    database: Database,
    following: Callable[[Lookout], None],
) -> None:
    waiters = ClaimWaiters()
    following(lookout(store, ledger, waiters, tuning=Tuning(wake_seconds=0.2)))
    with waiters.waiting(["render"]) as waiter:
        waiters.ready_elsewhere.set()
        while waiters.ready_elsewhere.is_set():
            await asyncio.sleep(0)
        await seed(database, 1, job_type="render")  # the look found none, or it is over soon
        waiters.ready_elsewhere.set()
        assert await waiter.wait(SECONDS)


@pytest.mark.usefixtures("damaged")
async def test_it_says_what_there_is_to_do(
    store: SqlStore, ledger: Ledger, database: Database
) -> None:
    """Each of the three, until it is done."""
    heads: list[FeedHead] = []
    overdue, due = asyncio.Event(), asyncio.Event()
    looking = lookout(
        store,
        ledger,
        ClaimWaiters(),
        overdue=overdue,
        due=due,
        heard=lambda head, asked_at: heads.append(head),
    )
    events = overdue, due, ledger.recheck

    async def found() -> list[bool]:
        for event in events:
            event.clear()
        await looking.look()
        return [event.is_set() for event in events]

    assert await found() == [False, False, False]
    await seed(database, 1, schedule_time=1)
    assert await found() == [False, True, False]
    await Promoter(store, ledger, ClaimWaiters()).promote()
    await execute(
        database,
        "UPDATE jobs SET deadline = 1",
        "INSERT INTO limit_keys VALUES ('k', 'k', 0, 1, 1)",
    )
    assert await found() == [True, False, True]
    assert [head.seq for head in heads] == [0, 1, 1]
    assert heads[-1] == await store.feed_head()


@sqlite_only
async def test_it_goes_on_after_the_database_was_away(
    store: SqlStore,
    ledger: Ledger,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It sees that, too: leases that expired meanwhile are extended."""
    await seed(database, 1, schedule_time=1)
    due, failed = asyncio.Event(), asyncio.Event()

    async def away(self: SqlStore, job_types: list[str]) -> object:
        failed.set()
        raise StoreUnavailable("away")

    tuning = Tuning(look_seconds=0.01)
    ledger.outages = Outages()
    looking = lookout(store, ledger, ClaimWaiters(), due=due, tuning=tuning)
    await looking.look()
    due.clear()
    before = ledger.outages.resumed_at
    async with asyncio.timeout(SECONDS):
        with monkeypatch.context() as patch:
            patch.setattr(SqlStore, "news", away)
            task = asyncio.create_task(looking.run())
            await failed.wait()
        await due.wait()
    task.cancel()
    await asyncio.wait([task])
    assert {record.message for record in caplog.records} == {"look_failed"}
    assert before is not None
    assert ledger.outages.resumed_at is not None
    assert ledger.outages.resumed_at > before


@sqlite_only
async def test_looks_that_fail_share_a_line_of_the_log(
    store: SqlStore,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Those that time asks for, and those that another server asks for."""
    waiters = ClaimWaiters()

    async def away(self: SqlStore, job_types: list[str]) -> object:
        waiters.ready_elsewhere.set()
        await asyncio.sleep(0)
        raise StoreUnavailable("away")

    monkeypatch.setattr(SqlStore, "news", away)
    looking = lookout(store, ledger, waiters, tuning=Tuning(look_seconds=0.001))
    with waiters.waiting(["render"]):
        async with running(looking.run()), running(looking.follow()), asyncio.timeout(SECONDS):
            while len(caplog.records) < 100:
                await asyncio.sleep(0.001)
    assert {record.message for record in caplog.records} == {"look_failed"}
    limiter = RateLimiter()
    assert sum(map(limiter.admits, caplog.records)) == 1


@several_servers
@pytest.mark.parametrize("promoting", [0, 1])
@pytest.mark.parametrize("tuning", [Tuning(look_seconds=0.05)])
async def test_a_claim_that_waits_at_any_server_gets_a_job_when_its_time_comes(
    start: Callable[..., Awaitable[App]], monkeypatch: pytest.MonkeyPatch, promoting: int
) -> None:
    """Whichever server promotes the job; the other one has a promoter that promotes nothing."""
    promoters: list[Promoter] = []
    run, promote = Promoter.run, Promoter.promote

    async def started(promoter: Promoter) -> None:
        promoters.append(promoter)
        await run(promoter)

    async def promoted(promoter: Promoter) -> int:
        return await promote(promoter) if promoter is promoters[promoting] else 0

    monkeypatch.setattr(Promoter, "run", started)
    monkeypatch.setattr(Promoter, "promote", promoted)
    creating, waiting = await start(), await start()
    async with (
        calling(creating.address) as here,
        calling(waiting.address) as there,
    ):
        claim = there.ClaimJobs(worker_id="w", job_types=["render"], wait=Duration(seconds=SECONDS))
        now = (await here.job(job_type="export")).create_time
        due = Timestamp(seconds=now.seconds + 1, nanos=now.nanos)
        scheduled = await here.job(schedule_time=due)
        (job,) = (await claim).jobs
    assert job.id == scheduled.id
    assert job.schedule_time == due
    assert job.start_time.ToNanoseconds() >= due.ToNanoseconds()
