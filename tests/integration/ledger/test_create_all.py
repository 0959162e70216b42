"""Creations of one call, in a batch with others."""

import asyncio
from contextlib import AbstractAsyncContextManager

import pytest

from jobledger_server.domain.commands import Create, CreateAll, NewGroup
from jobledger_server.domain.errors import RequestIdReused
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.sql.transaction import SqlTransaction
from tests.support.ledger_calls import apply, create_all
from tests.support.store_writer import read_jobs


def creation(request_id: str, job_type: str = "t") -> Create:
    return Create(user_id="ada", job_type=job_type, request_id=request_id)


async def test_a_call_in_the_same_batch_gets_no_job_of_a_refused_call(
    store: SqlStore, ledger: Ledger
) -> None:
    """It was never created: the other call would return an id of no job."""
    await apply(ledger, creation("used"))
    before = (await store.feed_head()).seq
    refused = CreateAll((creation("fresh"), creation("used", "other")))
    outcomes = await asyncio.gather(
        create_all(ledger, refused), apply(ledger, creation("fresh")), return_exceptions=True
    )
    assert isinstance(outcomes[0], RequestIdReused)
    assert outcomes[0].index == 1
    job = outcomes[1].job
    assert await read_jobs(store, [job.id]) == {job.id: job}
    assert (await store.feed_head()).seq == before + 1


async def test_a_unique_key_of_a_refused_call_is_free_in_the_same_batch(
    store: SqlStore, ledger: Ledger
) -> None:
    await apply(ledger, creation("used"))
    keyed = Create(user_id="ada", job_type="t", unique_key="u")
    refused = CreateAll((keyed, creation("used", "other")))
    outcomes = await asyncio.gather(
        create_all(ledger, refused), apply(ledger, keyed), return_exceptions=True
    )
    assert isinstance(outcomes[0], RequestIdReused)
    job = outcomes[1].job
    assert await read_jobs(store, [job.id]) == {job.id: job}


async def test_a_call_in_the_same_batch_with_the_same_request_gets_the_same_job(
    store: SqlStore, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once: the database does not have to refuse the second one first."""
    await apply(ledger, creation("before"))
    transactions = 0
    begin = store.transaction

    def counted() -> AbstractAsyncContextManager[SqlTransaction]:
        nonlocal transactions
        transactions += 1
        return begin()

    monkeypatch.setattr(store, "transaction", counted)
    made, single = await asyncio.gather(
        create_all(ledger, CreateAll((creation("a"), creation("b")))),
        apply(ledger, creation("b")),
    )
    assert single.job == made[1]
    assert transactions == 1
    assert (await store.feed_head()).seq == 3


async def test_a_repeated_call_in_the_same_batch_gets_a_group_with_its_jobs(
    store: SqlStore, ledger: Ledger
) -> None:
    group = Create(user_id="ada", job_type="t", request_id="g", group=NewGroup(sealed=True))
    child = Create(user_id="ada", job_type="t", request_id="c", group_index=0)
    calls = [create_all(ledger, CreateAll((group, child))) for _ in range(2)]
    made, repeated = await asyncio.gather(*calls)
    assert repeated == made
    assert await read_jobs(store, [each.id for each in made]) == {each.id: each for each in made}
