"""Lists over the wire: pages that are short, turns, and how long a list may take."""

import asyncio

import pytest
from grpc import StatusCode

from jobledger import AsyncClient
from jobledger_server.admission.caller import SERVICE, Caller
from jobledger_server.app import App
from jobledger_server.domain.errors import LimitExceeded
from jobledger_server.domain.limits import MAX_SCANNED_JOBS
from jobledger_server.rpc import lists
from jobledger_server.rpc.lists import CONCURRENT_LISTS, MAX_LISTS_EACH, Lists
from jobledger_server.sql.database import Database
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.store import StoreUnavailable
from tests.support.rpc_caller import Caller as Stub
from tests.support.rpc_caller import refusal
from tests.support.seeding import seed


async def test_a_page_may_be_empty_although_more_follow_and_clients_go_on(
    app: App, call: Stub, database: Database
) -> None:
    oldest = await call.job(labels={"team": "red"})
    # Those that are seeded have greater ids, and so come first.
    await seed(database, MAX_SCANNED_JOBS + 100)
    wanted = {"user_id": "ada", "filter": {"labels": {"team": "red"}}}
    first = await call.ListJobs(**wanted)
    assert not first.jobs
    assert first.next_page_token
    last = await call.ListJobs(**wanted, page_token=first.next_page_token)
    assert list(last.jobs) == [oldest]
    assert not last.next_page_token
    async with AsyncClient(app.address, user_id="ada") as client:
        assert [job.id async for job in client.list_jobs(labels={"team": "red"})] == [oldest.id]


async def test_a_list_that_takes_too_long_is_answered_with_unavailable_and_when_to_try_again(
    call: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "LIST_SECONDS", 0.1)

    async def slow(*_: object, **__: object) -> None:
        await asyncio.sleep(5)
        raise AssertionError("nobody has ended it")

    for method, of_store, fields in (
        ("ListJobs", "list_jobs", {}),
        ("ListAssets", "list_assets", {"job_id": (await call.job()).id}),
    ):
        monkeypatch.setattr(SqlStore, of_store, slow)
        refused = await refusal(getattr(call, method)(user_id="ada", **fields))
        assert (refused.code, refused.reason) == (StatusCode.UNAVAILABLE, "UNAVAILABLE")
        assert "RetryInfo" in refused.details


async def test_callers_list_in_turn_and_none_waits_indefinitely() -> None:
    turns = Lists()
    order: list[str] = []
    release = asyncio.Event()

    async def list_as(name: str) -> None:
        async with turns.turn(Caller("origin", name)):
            order.append(name)
            await release.wait()

    async with asyncio.TaskGroup() as group:
        many = [group.create_task(list_as("many")) for _ in range(MAX_LISTS_EACH)]
        await asyncio.sleep(0)
        with pytest.raises(LimitExceeded) as refused:
            await asyncio.wait_for(asyncio.create_task(list_as("many")), 5)
        assert (refused.value.limit, refused.value.scope) == ("lists", "caller")
        few = group.create_task(list_as("few"))
        await asyncio.sleep(0)
        assert order == ["many"] * CONCURRENT_LISTS
        release.set()
    assert order.index("few") <= CONCURRENT_LISTS + 1
    assert len(order) == len(many) + 1
    assert few.done()
    # Lists that were cancelled while they waited, or timed out, use no turn.
    with pytest.raises(StoreUnavailable):
        async with turns.turn(SERVICE):
            raise TimeoutError
    async with asyncio.timeout(5), turns.turn(SERVICE), turns.turn(SERVICE):
        pass
