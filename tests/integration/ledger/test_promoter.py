"""The promoter: claims that wait are woken when the time of a job comes, at every server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from jobledger_server.app import App
from jobledger_server.ledger.claim_waiters import ClaimWaiters
from jobledger_server.maintenance import promoter as promoter_module
from jobledger_server.maintenance.promoter import BATCH, TYPES, Promoter
from jobledger_server.sql.database import Database
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.store import Claimable, StoreUnavailable
from tests.support.databases import several_servers
from tests.support.rpc_caller import Caller
from tests.support.seeding import seed

SECONDS = 20
"""For what happens at once, or never."""


class Step:
    """One poll of a promoter: how many jobs were promoted, and what was asked for."""

    def __init__(self, promoted: int) -> None:
        self.promoted = promoted
        self.searches: list[Mapping[str, int]] = []


class Store:
    """Has jobs to promote, and notes how it is polled."""

    def __init__(self, due: int = 0, *, found: int = 0) -> None:
        self.due = due
        self.found = found
        """How many jobs a search for claimable jobs finds."""
        self.steps: list[Step] = []
        self.failing = False

    async def promote(self, *, limit: int) -> Mapping[str, int]:
        if self.failing:
            raise StoreUnavailable("away")
        promoted = min(self.due, limit)
        self.due -= promoted
        self.steps.append(Step(promoted))
        return {"due": promoted} if promoted else {}

    async def find_claimable(self, limits: Mapping[str, int], *, limit: int) -> list[Claimable]:
        self.steps[-1].searches.append(limits)
        job_type = next(iter(limits))
        return [Claimable(str(n), job_type, 0) for n in range(min(self.found, limit))]


@asynccontextmanager
async def running(store: Any, waiters: ClaimWaiters) -> AsyncIterator[list[float]]:
    """Run a promoter; yield how long it pauses after each poll. It takes no time."""
    pauses: list[float] = []
    polled = asyncio.Event()

    async def sleep(pause: float) -> None:
        pauses.append(pause)
        await real_sleep(0)
        if len(pauses) >= 20:
            polled.set()
            await asyncio.Event().wait()

    real_sleep = asyncio.sleep
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(promoter_module.asyncio, "sleep", sleep)
        task = asyncio.create_task(Promoter(store, waiters).run())
        async with asyncio.timeout(SECONDS):
            await polled.wait()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    yield pauses


async def test_many_due_jobs_are_promoted_in_steps_with_pauses_between() -> None:
    """No more than BATCH at once; others have the database between two steps."""
    store = Store(10 * BATCH + 1)
    async with running(store, ClaimWaiters()) as pauses:
        assert [step.promoted for step in store.steps] == [BATCH] * 10 + [1] + [0] * 9
        assert len(pauses) == len(store.steps)
        assert all(pause >= 0.375 for pause in pauses[10:])


async def test_claims_are_woken_between_the_steps() -> None:
    """Others may have promoted what they wait for, while this server is busy with its share."""
    store = Store(10 * BATCH)
    waiters = ClaimWaiters()
    with waiters.waiting(["render"]), waiters.waiting(["render", "export"]):
        async with running(store, waiters):
            assert [step.searches for step in store.steps] == [[{"render": 2, "export": 1}]] * 20


async def test_a_lost_wake_up_is_made_up_for_and_only_as_many_are_woken_as_there_are_jobs() -> None:
    store = Store(found=3)
    waiters = ClaimWaiters()
    with ExitStack() as stack:
        waiting = [stack.enter_context(waiters.waiting(["render"])) for _ in range(5)]
        await store.promote(limit=1)
        assert await Promoter(store, waiters).wake() == 3
        assert [waiter.woken_for for waiter in waiting] == ["render"] * 3 + [None] * 2


async def test_a_search_for_many_types_is_bounded_and_names_each_once() -> None:
    store = Store(found=10**6)
    waiters = ClaimWaiters()
    types = [f"t{number}" for number in range(2 * TYPES + 1)]
    with ExitStack() as stack:
        for _ in range(BATCH + 1):
            stack.enter_context(waiters.waiting(types))
        await store.promote(limit=1)
        assert await Promoter(store, waiters).wake() == 3 * BATCH
    searches = store.steps[-1].searches
    assert [len(limits) for limits in searches] == [TYPES, TYPES, 1]
    assert sorted(job_type for limits in searches for job_type in limits) == sorted(types)
    assert {count for limits in searches for count in limits.values()} == {BATCH}


async def test_while_nobody_waits_nothing_is_searched_for() -> None:
    store = Store()
    async with running(store, ClaimWaiters()):
        assert not any(step.searches for step in store.steps)


async def test_a_promoter_goes_on_after_the_database_was_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = Store(1)
    store.failing = True
    async with running(store, ClaimWaiters()) as pauses:
        assert all(pause >= 0.375 for pause in pauses)
    assert {record.message for record in caplog.records} == {"promotion_failed"}
    store.failing = False
    async with running(store, ClaimWaiters()):
        assert store.due == 0


async def test_a_promotion_wakes_as_many_claims_as_there_are_jobs(
    store: SqlStore, database: Database
) -> None:
    await seed(database, 3, due_time=1, job_type="render")
    waiters = ClaimWaiters()
    with ExitStack() as stack:
        waiting = [stack.enter_context(waiters.waiting(["render"])) for _ in range(5)]
        assert await Promoter(store, waiters).promote() == 3
        assert [waiter.woken_for for waiter in waiting] == ["render"] * 3 + [None] * 2
        assert await Promoter(store, waiters).promote() == 0


@several_servers
@pytest.mark.parametrize("promoting", [0, 1])
async def test_a_claim_that_waits_at_any_server_gets_a_job_when_its_time_comes(
    start: Callable[..., Awaitable[App]], monkeypatch: pytest.MonkeyPatch, promoting: int
) -> None:
    """Whichever server promotes the job; the other one has a promoter that promotes nothing."""
    promoters: list[Promoter] = []
    promote = Promoter.promote

    async def promoted(promoter: Promoter) -> int:
        if promoter not in promoters:
            promoters.append(promoter)
        return await promote(promoter) if promoter is promoters[promoting] else 0

    monkeypatch.setattr(promoter_module, "PROMOTE_SECONDS", 0.05)
    monkeypatch.setattr(Promoter, "promote", promoted)
    creating = await start()
    async with asyncio.timeout(SECONDS):
        while not promoters:
            await asyncio.sleep(0)
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
        assert not (await Caller(here).ClaimJobs(worker_id="w", job_types=["render"])).jobs
        (job,) = (await claim).jobs
    assert job.id == scheduled.id
    assert job.schedule_time == due
    assert job.start_time.ToNanoseconds() >= due.ToNanoseconds()
