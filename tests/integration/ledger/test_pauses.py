"""Starts by id, after what operators have set has changed."""

import asyncio

import pytest

from jobledger_server.domain.commands import ChangeStatus, Create
from jobledger_server.domain.errors import Paused
from jobledger_server.domain.job import JobStatus
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.sql.sql_store import SqlStore
from tests.support.ledger_calls import apply


async def test_a_start_that_changes_nothing_ends_whatever_was_set_meanwhile(
    ledger: Ledger, store: SqlStore
) -> None:
    """One that is refused, or repeated, reads no version of the settings from the feed."""
    job = (await apply(ledger, Create(user_id="ada", job_type="render"))).job
    start = ChangeStatus(job_id=job.id, target=JobStatus.PROCESSING, worker_id="w1")
    async with asyncio.timeout(30):
        await store.queue_settings.pause_type("render", actor="ann", reason="deploy")
        # This server does not know of the pause yet.
        for _ in range(2):
            with pytest.raises(Paused):
                await apply(ledger, start)
        await store.queue_settings.resume_type("render")
        # Nor of its end.
        started = await apply(ledger, start)
        again = await apply(ledger, start)
    assert (started.job.status, started.job.attempt) == (JobStatus.PROCESSING, 1)
    assert again.job.version == started.job.version
