"""Claims whose callers disconnected: their jobs are released, even if some releases fail."""

import asyncio
from contextlib import suppress

import pytest

from jobledger_server.admission.caller import SERVICE, Caller
from jobledger_server.domain.commands import ChangeStatus
from jobledger_server.domain.job import JobStatus
from jobledger_server.ledger.claim_waiters import ClaimWaiters
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.ledger.long_poll import LongPoll
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.store import StoreUnavailable
from tests.support.databases import sqlite_only
from tests.support.gated_store import Gate, GatedStore
from tests.support.ledger_calls import apply, claim, created
from tests.support.store_writer import read_jobs

CLAIM = claim(max_jobs=3)


@sqlite_only
@pytest.mark.parametrize("max_waiting", [100, 3])
async def test_one_release_that_fails_does_not_stop_the_others(
    store: SqlStore, max_waiting: int
) -> None:
    """Not even a caller at its limit: releases are the service's own work."""
    gated = GatedStore(store)
    async with Ledger(gated, lambda _: None, max_waiting=max_waiting) as ledger:
        jobs = [await created(ledger) for _ in range(3)]
        gate = gated.before_commit = Gate()
        async with LongPoll(ledger, ClaimWaiters()) as claims:  # its end waits for releases
            caller = Caller("1.1.1.1:1", "w")
            claiming = asyncio.create_task(claims.claim(CLAIM, 0, caller))
            await gate.reached.wait()
            # In the batch after the claim's, before the releases: one of the jobs is completed.
            completion = asyncio.create_task(
                apply(ledger, ChangeStatus(job_id=jobs[0].id, target=JobStatus.COMPLETED))
            )
            await asyncio.sleep(0)
            claiming.cancel()
            with suppress(asyncio.CancelledError):
                await claiming
            gate.open()
            assert (await completion).job.status is JobStatus.COMPLETED
        after = await read_jobs(store, [job.id for job in jobs])
    assert [(after[job.id].leased, after[job.id].releases) for job in jobs[1:]] == [(False, 1)] * 2


@sqlite_only
async def test_a_release_that_failed_is_retried_until_the_database_answers(store: SqlStore) -> None:
    refusals = 3

    async def refused() -> None:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise StoreUnavailable("away")

    gated = GatedStore(store)
    async with Ledger(gated, lambda _: None, max_waiting=10) as ledger:
        job = await created(ledger)
        async with LongPoll(ledger, ClaimWaiters(), release_retry_seconds=0.01) as claims:
            claimed = await claims.claim(CLAIM, 0, SERVICE)
            gated.before_commit = refused
            claims.release([decision.job for decision in claimed])
            async with asyncio.timeout(20):
                while (await read_jobs(store, [job.id]))[job.id].leased:
                    await asyncio.sleep(0.01)
    assert not refusals


@sqlite_only
async def test_shutdown_does_not_wait_for_an_unavailable_database(store: SqlStore) -> None:
    refused = asyncio.Event()

    async def away() -> None:
        refused.set()
        raise StoreUnavailable("away")

    gated = GatedStore(store)
    async with Ledger(gated, lambda _: None, max_waiting=10) as ledger:
        await created(ledger)
        async with (
            asyncio.timeout(20),
            LongPoll(ledger, ClaimWaiters(), release_retry_seconds=3600) as claims,
        ):
            claimed = await claims.claim(CLAIM, 0, SERVICE)
            gated.before_commit = away
            claims.release([decision.job for decision in claimed])
            await refused.wait()


@sqlite_only
async def test_a_claim_whose_caller_left_before_its_batch_claims_nothing(store: SqlStore) -> None:
    gated = GatedStore(store)
    async with Ledger(gated, lambda _: None, max_waiting=10) as ledger:
        jobs = [await created(ledger, job_type) for job_type in ("render", "export")]
        gate = gated.before_commit = Gate()
        async with LongPoll(ledger, ClaimWaiters()) as claims:
            first = asyncio.create_task(claims.claim(CLAIM, 0, SERVICE))
            await gate.reached.wait()
            second = asyncio.create_task(claims.claim(claim("export", max_jobs=3), 0, SERVICE))
            await asyncio.sleep(0)
            second.cancel()
            with suppress(asyncio.CancelledError):
                await second
            gate.open()
            assert [decision.job.id for decision in await first] == [jobs[0].id]
        after = await read_jobs(store, [jobs[1].id])
    assert after == {jobs[1].id: jobs[1]}
