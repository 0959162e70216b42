"""The promoter: jobs that wait go on, and claims that wait for them are woken, at every server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, suppress

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import text

from jobledger_server.app import App
from jobledger_server.domain.commands import Create
from jobledger_server.ledger.claim_waiters import ClaimWaiters
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.maintenance import promoter as promoter_module
from jobledger_server.maintenance.promoter import Promoter
from jobledger_server.sql.database import Database
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.store import StoreUnavailable
from jobledger_server.tuning import Tuning
from tests.support.databases import several_servers, sqlite_only
from tests.support.ledger_calls import apply
from tests.support.recount import recount
from tests.support.rpc_caller import Caller
from tests.support.seeding import seed

SECONDS = 20
"""For what happens at once, or never."""

BATCH, TYPES = Tuning().promote_batch, Tuning().awaited_types


@asynccontextmanager
async def running(promoter: Promoter, polls: int) -> AsyncIterator[list[float]]:
    """Run a promoter for some polls; yield how long it pauses after each. It takes no time."""
    pauses: list[float] = []
    polled = asyncio.Event()

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) >= polls:
            polled.set()
            await asyncio.Event().wait()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(promoter, "_pause", pause)
        task = asyncio.create_task(promoter.run())
        async with asyncio.timeout(SECONDS):
            await polled.wait()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    yield pauses


@sqlite_only
async def test_many_due_jobs_are_promoted_in_steps_with_pauses_between(
    store: SqlStore, ledger: Ledger, database: Database
) -> None:
    """No more than a batch at once; others have the database between two steps."""
    await seed(database, 3 * BATCH + 1, schedule_time=1)
    promoter = Promoter(store, ledger, ClaimWaiters())
    promoted: list[int] = []
    promote = promoter.promote

    async def counted() -> int:
        promoted.append(await promote())
        return promoted[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(promoter, "promote", counted)
        async with running(promoter, 6) as pauses:
            assert promoted == [BATCH, BATCH, BATCH, 1]
            assert all(pause >= 0.375 for pause in pauses[3:])
    assert await recount(database) == []


async def test_a_lost_wake_up_is_made_up_for_and_only_as_many_are_woken_as_there_are_jobs(
    store: SqlStore, ledger: Ledger, database: Database
) -> None:
    await seed(database, 3, job_type="render")
    waiters = ClaimWaiters()
    with ExitStack() as stack:
        waiting = [stack.enter_context(waiters.waiting(["render"])) for _ in range(5)]
        await Promoter(store, ledger, waiters).step()
        assert [waiter.woken_for for waiter in waiting] == ["render"] * 3 + [None] * 2


async def test_claims_of_a_paused_type_are_not_woken_until_it_goes_on(
    store: SqlStore, ledger: Ledger, database: Database
) -> None:
    await seed(database, 3, job_type="render")
    waiters = ClaimWaiters()
    promoter = Promoter(store, ledger, waiters)
    await _execute(
        database,
        "INSERT INTO paused_types VALUES ('render', 1, 'o', '')",
        "UPDATE feed SET config_version = config_version + 1",
    )
    with waiters.waiting(["render"]) as waiter:
        await promoter.step()
        assert waiter.woken_for is None
        await _execute(
            database,
            "DELETE FROM paused_types",
            "UPDATE feed SET config_version = config_version + 1",
        )
        await promoter.step()
        assert waiter.woken_for == "render"


async def _execute(database: Database, *statements: str) -> None:
    async with database.writer.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


@sqlite_only
async def test_each_query_names_a_bounded_number_of_types(
    store: SqlStore, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    news = SqlStore.queue_news

    async def counted(self: SqlStore, job_types: list[str]) -> object:
        asked.append(len(job_types))
        return await news(self, job_types)

    monkeypatch.setattr(SqlStore, "queue_news", counted)
    waiters = ClaimWaiters()
    with waiters.waiting([f"t{number}" for number in range(2 * TYPES + 1)]):
        await Promoter(store, ledger, waiters).step()
    assert asked == [TYPES, TYPES, 1]


@sqlite_only
async def test_a_promoter_goes_on_after_the_database_was_away(
    store: SqlStore,
    ledger: Ledger,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await seed(database, 1, schedule_time=1)

    async def away(self: SqlStore, job_types: list[str]) -> object:
        raise StoreUnavailable("away")

    promoter = Promoter(store, ledger, ClaimWaiters())
    with monkeypatch.context() as patch:
        patch.setattr(SqlStore, "queue_news", away)
        async with running(promoter, 2) as pauses:
            assert all(pause >= 0.375 for pause in pauses)
    assert {record.message for record in caplog.records} == {"promotion_failed"}
    async with running(promoter, 2):
        assert not (await store.queue_news([])).due


async def test_a_promotion_wakes_as_many_claims_as_there_are_jobs(
    store: SqlStore, ledger: Ledger, database: Database
) -> None:
    await seed(database, 3, schedule_time=1, job_type="render")
    waiters = ClaimWaiters()
    with ExitStack() as stack:
        waiting = [stack.enter_context(waiters.waiting(["render"])) for _ in range(5)]
        promoter = Promoter(store, ledger, waiters)
        assert await promoter.promote() == 3
        assert [waiter.woken_for for waiter in waiting] == ["render"] * 3 + [None] * 2
        assert await promoter.promote() == 0
    assert await recount(database) == []


async def test_a_due_job_whose_key_is_full_is_blocked_and_looked_at_again(
    store: SqlStore, ledger: Ledger, database: Database
) -> None:
    """A claim would only pass over it, so none is woken for it."""
    await seed(database, 3, schedule_time=1, job_type="render", concurrency_key="full")
    ledger.known_limits.saw("full", full=True)
    waiters = ClaimWaiters()
    promoter = Promoter(store, ledger, waiters)
    with waiters.waiting(["render"]) as waiter:
        assert await promoter.promote() == 3
        assert waiter.woken_for is None
        assert await recount(database) == []
        assert ledger.recheck.is_set()
        await promoter.unblock()  # the key is not full
        assert waiter.woken_for == "render"
    assert await recount(database) == []


@sqlite_only
async def test_concurrency_keys_take_turns(
    store: SqlStore, ledger: Ledger, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One look is at few keys, and a key stays marked while more of its jobs may follow."""
    for number in range(3):
        creation = Create(user_id="ada", job_type="t", concurrency_key=f"k{number}")
        ledger.known_limits.saw(creation.concurrency_key, full=True)
        await apply(ledger, creation)
    looked_at: list[str] = []
    unblock = promoter_module.unblock

    async def counted(store: SqlStore, known: object, key: str, *, most: int) -> object:
        looked_at.append(key)
        found = await unblock(store, known, key, most=most)
        await _execute(database, "UPDATE limit_keys SET recheck = 1")
        return found

    monkeypatch.setattr(promoter_module, "unblock", counted)
    promoter = Promoter(store, ledger, ClaimWaiters(), Tuning(rechecked_keys=2))
    assert [await promoter.unblock() for _ in range(3)] == [True, False, True]
    assert looked_at == ["k0", "k1", "k2", "k0", "k1"]


@several_servers
@pytest.mark.parametrize("promoting", [0, 1])
@pytest.mark.parametrize("tuning", [Tuning(promote_seconds=0.05)])
async def test_a_claim_that_waits_at_any_server_gets_a_job_when_its_time_comes(
    start: Callable[..., Awaitable[App]], monkeypatch: pytest.MonkeyPatch, promoting: int
) -> None:
    """Whichever server promotes the job; the other one has a promoter that promotes nothing."""
    promoters: list[Promoter] = []
    step, promote = Promoter.step, Promoter.promote

    async def stepped(promoter: Promoter) -> bool:
        if promoter not in promoters:
            promoters.append(promoter)
        return await step(promoter)

    async def promoted(promoter: Promoter) -> int:
        return await promote(promoter) if promoter is promoters[promoting] else 0

    monkeypatch.setattr(Promoter, "step", stepped)
    monkeypatch.setattr(Promoter, "promote", promoted)
    creating = await start()
    async with asyncio.timeout(SECONDS):
        while not promoters:
            await asyncio.sleep(0.001)
    waiting = await start()
    async with (
        grpc.aio.insecure_channel(creating.address) as here,
        grpc.aio.insecure_channel(waiting.address) as there,
    ):
        claim = Caller(there).ClaimJobs(
            worker_id="w", job_types=["render"], wait=Duration(seconds=SECONDS)
        )
        now = (await Caller(here).job(job_type="export")).create_time
        due = Timestamp(seconds=now.seconds + 1, nanos=now.nanos)
        scheduled = await Caller(here).job(schedule_time=due)
        (job,) = (await claim).jobs
    assert job.id == scheduled.id
    assert job.schedule_time == due
    assert job.start_time.ToNanoseconds() >= due.ToNanoseconds()
