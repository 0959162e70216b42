"""The ids of queues: each job is written with that of its queue, whoever makes the queue's row."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import text

from jobledger_server.admission.caller import SERVICE
from jobledger_server.domain.commands import ChangeStatus, Create, CreateAll
from jobledger_server.domain.job import Job, JobStatus
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.maintenance.sweeper import Sweeper
from jobledger_server.sql.database import Database
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.store import Claimable
from tests.support.ledger_calls import apply, claim, claim_jobs, create_all

SIZES = [3, 16]
"""New jobs of a batch. PostgreSQL copies them from 16 on, else one statement writes them."""


def creation(tenant: str, **fields: Any) -> Create:
    return Create(user_id="ada", job_type="render", fairness_key=tenant, **fields)


async def created(ledger: Ledger, *tenants: str, **fields: Any) -> Sequence[Job]:
    """Create a job of each tenant, in one batch."""
    return await create_all(ledger, CreateAll(tuple(creation(each, **fields) for each in tenants)))


async def queues(database: Database) -> list[str]:
    """Return the tenants of the queues, in the order of the ids."""
    async with database.reader.connect() as connection:
        found = await connection.execute(
            text("SELECT fairness_key FROM queues WHERE fairness_key <> '' ORDER BY id")
        )
        return [tenant for (tenant,) in found]


def names(*numbers: int) -> list[str]:
    """Return the names of tenants, which are not in the order of their numbers."""
    return [f"{number * 7919 % 1000:03}" for number in numbers]


@pytest.mark.parametrize("size", SIZES)
async def test_new_queues_have_ids_in_the_order_of_their_creation(
    ledger: Ledger, database: Database, size: int
) -> None:
    """So their rows and those of their jobs are next to each other in the indexes."""
    tenants = names(*range(3 * size))
    for first in range(0, len(tenants), size):
        await created(ledger, *tenants[first : first + size])
    assert await queues(database) == tenants


@pytest.mark.parametrize("size", SIZES)
async def test_a_batch_makes_some_queues_and_finds_the_others(
    ledger: Ledger, database: Database, size: int
) -> None:
    await created(ledger, *names(*range(0, size, 2)), schedule_time=4_000_000_000_000_000)
    made = await created(ledger, *names(*range(size)), *names(*range(size)))
    assert sorted(await queues(database)) == sorted(names(*range(size)))
    got = await claim_jobs(ledger, claim(max_jobs=100))
    assert sorted(job.id for job in got) == sorted(job.id for job in made)


@pytest.mark.parametrize("size", SIZES)
async def test_a_job_that_ends_frees_its_unique_key_for_jobs_in_new_queues(
    ledger: Ledger, size: int
) -> None:
    """Then the updates of a batch come before its insertions."""
    await created(ledger, "first", unique_key="one")
    (job,) = await claim_jobs(ledger, claim())
    end = ChangeStatus(job_id=job.id, target=JobStatus.COMPLETED, attempt=1)
    more = [creation(tenant) for tenant in names(*range(1, size))]
    done = await ledger.submit([end, creation("second", unique_key="one"), *more], SERVICE)
    assert [each for each in done if isinstance(each, Exception)] == []
    assert len(await claim_jobs(ledger, claim(max_jobs=100))) == size


async def test_two_servers_make_one_queue_of_each_tenant(
    ledger: Ledger, other: Ledger, database: Database
) -> None:
    for first in range(0, 60, 20):
        tenants = names(*range(first, first + 20))
        await asyncio.gather(
            *(created(server, *tenants[:few]) for server in (ledger, other) for few in (20, 5, 1))
        )
    assert sorted(await queues(database)) == sorted(names(*range(60)))


@pytest.mark.parametrize("size", SIZES)
async def test_tenants_that_come_back_after_a_sweep_have_new_queues(
    ledger: Ledger, other: Ledger, store: SqlStore, database: Database, size: int
) -> None:
    """The old id may be another queue's by then."""
    tenants = names(*range(size))
    await created(ledger, *tenants)
    for job in await claim_jobs(ledger, claim(max_jobs=100)):
        await apply(ledger, ChangeStatus(job_id=job.id, target=JobStatus.COMPLETED, attempt=1))
    for sweeping in Sweeper(store).passes:
        async for _ in sweeping():
            pass
    assert await queues(database) == []
    made = await created(other, "new", *reversed(tenants))
    assert await queues(database) == ["new", *reversed(tenants)]
    got = await claim_jobs(ledger, claim(max_jobs=100))
    assert [job.id for job in got] == [job.id for job in made]


async def test_equal_tenants_go_in_the_order_in_which_they_came(ledger: Ledger) -> None:
    made = await created(ledger, "zoe", "bob", "moe", "bob", "zoe", "moe")
    got = [job.id for _ in made for job in await claim_jobs(ledger, claim())]
    assert got == [made[number].id for number in (0, 1, 2, 4, 3, 5)]


async def test_a_claim_searches_the_queues_of_the_jobs_that_others_have_locked(
    ledger: Ledger, store: SqlStore
) -> None:
    """It knows these jobs from a change, or from a search."""
    made = await created(ledger, "bob", "zoe", "bob", "zoe", "moe")
    planned = [
        Claimable(job.id, job.job_type, 0, job.priority, job.tenant)
        for job in (made[3], made[2], made[0])
    ]
    async with store.transaction() as transaction:
        found = await transaction.find_ready(planned)
    assert [job.id for job in found] == [made[number].id for number in (1, 0, 2)]
