"""The slots of a stream: filled while they are free, released when the stream breaks."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from jobledger_server.admission.caller import Caller
from jobledger_server.admission.rates import RateLimit
from jobledger_server.domain.commands import Claim, Create
from jobledger_server.domain.job import JobId, Micros
from jobledger_server.ledger.claim_waiters import ClaimWaiters
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.ledger.long_poll import LongPoll
from jobledger_server.rpc.workers.work_leases import Leases
from jobledger_server.rpc.workers.work_slots import Slots
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.watch.held_jobs import HeldJobs
from jobledger_server.watch.hub import WatchHub
from tests.support.ledger_calls import apply
from tests.support.store_writer import read_job

WORKER = Caller("1.1.1.1:1", "w")
LEASE = Micros(60_000_000)
CLAIM = Claim(worker_id="w", job_types={"render"}, max_jobs=1, lease_duration=LEASE)


class Stream:
    """Slots, and whether they have jobs to send."""

    def __init__(self, ledger: Ledger, hub: WatchHub, held: HeldJobs, long_poll: LongPoll) -> None:
        self.ready = asyncio.Event()
        self.errors: list[Exception] = []
        self.leases = Leases(ledger, held, WORKER, RateLimit("updates", lambda _: None))
        self.leases.seconds = 60.0
        self.slots = Slots(
            *(long_poll, hub, held, self.leases, WORKER),
            ready=self.ready.set,
            failed=self.errors.append,
        )

    async def pushed(self) -> list[JobId]:
        """Return the ids of the jobs that are sent next."""
        async with asyncio.timeout(20):
            await self.ready.wait()
        self.ready.clear()
        ids = [started.job.id for started in self.slots.take()]
        self.slots.sent()
        return ids


@pytest.fixture
async def stream(ledger: Ledger, hub: WatchHub, held: HeldJobs) -> AsyncIterator[Stream]:
    async with LongPoll(ledger, ClaimWaiters()) as long_poll:
        stream = Stream(ledger, hub, held, long_poll)
        yield stream
        stream.slots.close()
    assert stream.errors == []


async def created(ledger: Ledger, count: int) -> list[JobId]:
    return [
        (await apply(ledger, Create(user_id="ada", job_type="render"))).job.id for _ in range(count)
    ]


async def test_jobs_are_claimed_for_free_slots_only(
    ledger: Ledger, held: HeldJobs, stream: Stream
) -> None:
    ids = await created(ledger, 3)
    stream.slots.set(CLAIM, 2)
    assert await stream.pushed() == ids[:2]
    assert held.attempts() == [(each, 1) for each in ids[:2]]
    held.remove(held.attempts()[0][0], 1)
    stream.slots.changed()
    assert await stream.pushed() == ids[2:]


async def test_a_message_that_does_not_change_the_slots_leaves_them(
    ledger: Ledger, stream: Stream
) -> None:
    ids = await created(ledger, 1)
    stream.slots.set(CLAIM, 1)
    stream.slots.set(CLAIM, None)
    assert await stream.pushed() == ids


async def test_jobs_that_were_not_sent_are_released_at_the_end(
    ledger: Ledger, hub: WatchHub, held: HeldJobs, store: SqlStore
) -> None:
    (job_id,) = await created(ledger, 1)
    async with LongPoll(ledger, ClaimWaiters()) as long_poll:  # its end waits for releases
        stream = Stream(ledger, hub, held, long_poll)
        stream.slots.set(CLAIM, 1)
        await stream.ready.wait()
        assert [started.job.id for started in stream.slots.take()] == [job_id]
        stream.slots.close()
    job = (await read_job(store, job_id)).job
    assert (job.leased, job.releases) == (False, 1)
