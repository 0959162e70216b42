"""Creations in as many queues: each is on pages of its own, so they are the dearest to write.

Counted in batches of creations, of which another caller's claim waits for few, and short ones.
"""

import asyncio

import pytest

from jobledger_server.admission.caller import Caller
from jobledger_server.domain.commands import Create
from jobledger_server.ledger.ledger import QUEUE_WEIGHT, Ledger
from jobledger_server.tuning import Tuning
from tests.support.databases import sqlite_only
from tests.support.ledger_calls import apply_all, claim, claim_jobs

JOBS = 3_000

LONGEST_WAIT = 3
"""Batches: the one under way, one that asked for the writer before the claim, and one more that
begins while the claim looks for a job."""


@sqlite_only
@pytest.mark.parametrize("kind", ["fairness_key", "job_type"])
async def test_claims_wait_for_few_and_short_batches_of_creations_in_many_queues(
    ledger: Ledger, tuning: Tuning, kind: str
) -> None:
    await apply_all(ledger, [Create(user_id="ada", job_type="render")] * 100)
    eve, commands = Caller("eve"), ledger.batchers[0]
    begun = sum(commands.sizes.buckets)
    flood = [
        ledger.submit([Create(user_id="eve", **{"job_type": "t", kind: f"k{number}"})], eve)
        for number in range(JOBS)
    ]
    waited: list[int] = []
    while not all(each.done() for each in flood):
        before = sum(commands.sizes.buckets)
        assert len(await claim_jobs(ledger, claim("render", max_jobs=1))) == 1
        waited.append(sum(commands.sizes.buckets) - before)
    await asyncio.gather(*flood)
    batches = sum(commands.sizes.buckets) - begun
    assert batches >= JOBS * (1 + QUEUE_WEIGHT) // tuning.command_batch
    assert max(waited) <= LONGEST_WAIT, waited
