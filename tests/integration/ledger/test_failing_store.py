"""What claims answer when the database fails, or others are faster."""

import asyncio
from collections.abc import Mapping

import pytest

from jobledger_server.ledger import claims
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.store import Claimable, Store, StoreUnavailable
from tests.support.ledger_calls import claim, claim_jobs, created


async def test_a_claim_keeps_what_it_got_before_the_database_failed(
    ledger: Ledger, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await created(ledger, "a")
    searches = 0
    find = store.find_claimable

    async def found(limits: Mapping[str, int], *, limit: int) -> list[Claimable]:
        nonlocal searches
        searches += 1
        if searches > 1:
            raise StoreUnavailable("gone")
        return await find(limits, limit=limit)

    monkeypatch.setattr(store, "find_claimable", found)
    served, unserved = await asyncio.gather(
        claim_jobs(ledger, claim("a")), claim_jobs(ledger, claim("b")), return_exceptions=True
    )
    assert [each.id for each in served] == [job.id]
    assert isinstance(unserved, StoreUnavailable)
    assert (ledger.store_errors["connection"], searches) == (1, 2)


async def test_a_claim_that_others_always_overtake_ends_without_a_job(
    ledger: Ledger, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await created(ledger, "a")
    await claim_jobs(ledger, claim("a"))
    searches = 0

    async def outdated(limits: Mapping[str, int], *, limit: int) -> list[Claimable]:
        nonlocal searches
        searches += 1
        assert searches <= claims.MAX_LOST_RACES
        return [Claimable(job.id, job.job_type, 0, job.priority, job.tenant)]

    monkeypatch.setattr(store, "find_claimable", outdated)
    assert await claim_jobs(ledger, claim("a")) == []
    assert searches == claims.MAX_LOST_RACES
