"""Updates of jobs that are not started: their queues, and what is written with them."""

from typing import Any

import pytest

from jobledger_server.domain.commands import (
    Cancel,
    ChangeStatus,
    Create,
    CreateAll,
    Delete,
    Update,
)
from jobledger_server.domain.errors import JobStarted
from jobledger_server.domain.job import Instant, Job, JobStatus, Phase
from jobledger_server.ledger.claim_waiters import ClaimWaiters
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.maintenance.unblocker import Unblocker
from jobledger_server.sql.postgresql.postgresql_driver import COPY_FROM_ROWS
from jobledger_server.sql.sql_store import SqlStore
from tests.support.databases import both_databases
from tests.support.ledger_calls import apply, apply_all, claim, claim_jobs, create_all, created
from tests.support.store_writer import read_job

pytestmark = both_databases

HOUR = 3600 * 10**6
LONG_AGO = Instant(1)


def update(job: Job, **fields: Any) -> Update:
    return Update(job_id=job.id, user_id=job.user_id, **fields)


def later(job: Job) -> Instant:
    return Instant(job.create_time + HOUR)


async def claimed(ledger: Ledger, count: int) -> list[str]:
    return [job.id for job in await claim_jobs(ledger, claim(max_jobs=count))]


async def test_a_job_with_another_priority_goes_as_the_jobs_of_that_one(ledger: Ledger) -> None:
    """Of two tenants and two priorities. Among those of its queue it goes by its age."""
    jobs = [await created(ledger, priority=priority) for priority in (5, 5, 9, 1)]
    other = await created(ledger, user_id="bob", priority=1)
    await apply(ledger, update(jobs[1], priority=9))
    await apply(ledger, update(other, priority=5))
    await apply(ledger, update(jobs[2], priority=0))
    assert await claimed(ledger, 2) == [jobs[1].id, jobs[0].id]
    assert await claimed(ledger, 9) == [other.id, jobs[3].id, jobs[2].id]


async def test_a_blocked_job_goes_on_by_its_new_priority(ledger: Ledger, store: SqlStore) -> None:
    await store.queue_settings.set_limit("k", 1)
    held, *blocked = await create_all(
        ledger, CreateAll((Create(user_id="ada", job_type="render", concurrency_key="k"),) * 4)
    )
    assert await claimed(ledger, 4) == [held.id]
    await apply(ledger, update(blocked[2], priority=9))
    await apply(ledger, update(blocked[0], schedule_time=later(held)))
    await apply(ledger, ChangeStatus(job_id=held.id, target=JobStatus.COMPLETED))
    await Unblocker(store, ledger, ClaimWaiters()).unblock()
    assert await claimed(ledger, 4) == [blocked[2].id]
    # Its key is full: a claim would only pass over it.
    await apply(ledger, update(blocked[0], schedule_time=LONG_AGO))
    assert await claimed(ledger, 4) == []
    await apply(ledger, ChangeStatus(job_id=blocked[2].id, target=JobStatus.COMPLETED))
    await Unblocker(store, ledger, ClaimWaiters()).unblock()
    assert await claimed(ledger, 4) == [blocked[0].id]


async def test_a_ready_job_that_is_put_off_gives_its_slot_to_a_blocked_one(
    ledger: Ledger, store: SqlStore
) -> None:
    await store.queue_settings.set_limit("k", 1)
    held, ready, blocked = await create_all(
        ledger, CreateAll((Create(user_id="ada", job_type="render", concurrency_key="k"),) * 3)
    )
    assert await claimed(ledger, 3) == [held.id]
    await apply(ledger, ChangeStatus(job_id=held.id, target=JobStatus.COMPLETED))
    await Unblocker(store, ledger, ClaimWaiters()).unblock()
    await apply(ledger, update(ready, schedule_time=later(held)))
    await Unblocker(store, ledger, ClaimWaiters()).unblock()
    assert await claimed(ledger, 3) == [blocked.id]


@pytest.mark.parametrize("count", [1, COPY_FROM_ROWS])
async def test_one_batch_may_update_end_and_delete_a_job_and_create_others(
    ledger: Ledger, store: SqlStore, count: int
) -> None:
    """A creation may have the unique key, and the request id, of a job that ends with it."""
    named = {"unique_key": "u", "request_id": "r"}
    job = await created(ledger, **named)
    moved = await created(ledger, schedule_time=later(job))
    await apply_all(
        ledger,
        [
            update(job, priority=9),
            update(moved, priority=1),
            update(moved, schedule_time=LONG_AGO),
            Cancel(job_id=job.id, user_id="ada"),
            Delete(job_id=job.id, user_id="ada"),
            *(Create(user_id="ada", job_type="render", priority=3) for _ in range(count)),
        ],
    )
    again = await created(ledger, **named)
    assert again.id != job.id
    read = (await read_job(store, moved.id)).job
    assert (read.priority, read.phase, read.version) == (1, Phase.READY, 3)
    page = await store.changes_after(0, limit=100)
    (gone,) = [change for change in page.changes if change.deleted]
    assert (gone.job.id, gone.job.priority, gone.job.version) == (job.id, 9, 5)
    assert len(await claimed(ledger, 99)) == count + 2


async def test_the_feed_has_the_newest_update_and_each_transition_with_its_version(
    ledger: Ledger, store: SqlStore
) -> None:
    job = await created(ledger)
    for priority in (6, 7):
        await apply(ledger, update(job, priority=priority))
    (change,) = (await store.changes_after(0, limit=9)).changes
    assert (change.job.version, change.job.priority, change.transitions) == (3, 7, ())
    start = ChangeStatus(job_id=job.id, target=JobStatus.PROCESSING, worker_id="w")
    started = (await apply(ledger, start)).job
    with pytest.raises(JobStarted):
        await apply(ledger, update(job, priority=1))
    await apply(ledger, ChangeStatus(job_id=job.id, target=JobStatus.COMPLETED))
    first, last = (await store.changes_after(0, limit=9)).changes
    assert first.job == started
    assert [each.version for each in (*first.transitions, *last.transitions)] == [4, 5]
    read = await read_job(store, job.id)
    assert [each.version for each in read.transitions] == [4, 5]
