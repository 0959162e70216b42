"""WaitOperation: woken, not polling; bounded by its timeout and by the call's deadline."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode

from jobledger_server.app import App
from jobledger_server.sql.sql_store import SqlStore
from tests.e2e.longrunning.operations import Operations, full, job_in, name_of
from tests.support.gated_store import Gate
from tests.support.in_turn import in_turn
from tests.support.rpc_caller import Caller, refusal

Start = Callable[..., Any]

READS = ("read_jobs", "list_jobs", "list_assets")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the reads that the server makes for its callers."""
    counted: Counter[str] = Counter()

    def counting(name: str) -> Any:
        original = getattr(SqlStore, name)

        async def read(self: Any, *arguments: Any, **named: Any) -> Any:
            counted[name] += 1
            return await original(self, *arguments, **named)

        return read

    for name in READS:
        monkeypatch.setattr(SqlStore, name, counting(name))
    return counted


async def until_waiting(app: App, watches: int = 1) -> None:
    """Return when this number of calls waits in the hub."""
    async with asyncio.timeout(10):
        while app.hub.watches != watches:
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(("result", "queries"), [({}, 1), ({"pages": 4}, 2)])
async def test_a_completion_ends_the_wait_with_a_query_for_the_job_and_one_for_its_result(
    app: App,
    call: Caller,
    operations: Operations,
    reads: Counter[str],
    result: dict[str, int],
    queries: int,
) -> None:
    job = await call.running()
    waiting = asyncio.ensure_future(operations.Wait(name=name_of(job)))
    await until_waiting(app)
    for progress in range(10):
        await call.UpdateProgress(job_id=job.id, attempt=1, progress={"progress": progress})
    assert not waiting.done()
    await call.MarkCompleted(job_id=job.id, attempt=1, finish={"result": result})
    operation = await waiting
    assert operation.done
    assert reads == {"read_jobs": queries}
    assert job_in(operation.response) == await full(call, job)
    assert app.hub.watches == 0


async def test_a_wait_for_a_terminal_job_returns_at_once(
    call: Caller, operations: Operations
) -> None:
    job = await call.ended()
    operation = await operations.Wait(name=name_of(job), deadline=None)
    assert operation == await operations.Get(name=name_of(job))


async def test_nothing_is_lost_between_subscribing_and_reading(
    monkeypatch: pytest.MonkeyPatch, call: Caller, operations: Operations
) -> None:
    gate = Gate()
    original = SqlStore.read_jobs

    async def read_then_wait(self: Any, wanted: Any, **options: Any) -> Any:
        jobs = await original(self, wanted, **options)
        await gate()
        return jobs

    job = await call.running()
    monkeypatch.setattr(SqlStore, "read_jobs", read_then_wait)
    waiting = asyncio.ensure_future(operations.Wait(name=name_of(job)))
    await gate.reached.wait()  # read as PROCESSING, and not known yet
    ended = (await call.MarkCompleted(job_id=job.id, attempt=1)).job
    gate.open()
    assert job_in((await waiting).response) == ended


async def test_a_timeout_returns_the_newest_state_undone(
    app: App, call: Caller, operations: Operations, reads: Counter[str]
) -> None:
    job = await call.running()
    loop = asyncio.get_running_loop()
    began = loop.time()
    waiting = asyncio.ensure_future(
        operations.Wait(name=name_of(job), timeout=Duration(nanos=700_000_000))
    )
    await until_waiting(app)
    await call.UpdateProgress(job_id=job.id, attempt=1, progress={"progress": 42})
    operation = await waiting
    assert loop.time() - began >= 0.7
    assert not operation.done
    assert job_in(operation.metadata).progress == 42
    assert reads == {"read_jobs": 2}


async def test_a_timeout_of_zero_reads_the_state_and_does_not_wait(
    call: Caller, operations: Operations
) -> None:
    job = await call.running()
    async with asyncio.timeout(10):
        operation = await operations.Wait(name=name_of(job), timeout=Duration(), deadline=None)
    assert not operation.done
    assert job_in(operation.metadata) == job


async def test_a_deadline_shorter_than_the_timeout_is_answered_before_it_passes(
    call: Caller, operations: Operations
) -> None:
    job = await call.running()
    timeout = Duration(seconds=3600)
    operation = await operations.Wait(name=name_of(job), timeout=timeout, deadline=2)
    assert not operation.done
    assert job_in(operation.metadata) == job


async def test_a_wait_lasts_no_longer_than_a_watch_and_returns_the_newest_state(
    start: Start,
) -> None:
    app = await start(max_watch_age=0.5)
    async with grpc.aio.insecure_channel(app.address) as channel:
        job = await Caller(channel).running()
        async with asyncio.timeout(10):
            operation = await Operations(channel).Wait(name=name_of(job), deadline=None)
    assert not operation.done
    assert job_in(operation.metadata) == job


@in_turn("timeout", [Duration(seconds=-1), Duration(nanos=-1), Duration(seconds=366 * 24 * 3600)])
async def test_an_invalid_timeout_is_refused(operations: Operations, timeout: Duration) -> None:
    refused = await refusal(operations.Wait(name="jobs/x", timeout=timeout))
    assert (refused.code, refused.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert refused.details["BadRequest"].field_violations[0].field == "timeout"


async def test_a_cancelled_wait_releases_its_subscription(
    app: App, call: Caller, operations: Operations
) -> None:
    job = await call.running()
    waiting = operations.Wait(name=name_of(job))
    await until_waiting(app)
    waiting.cancel()
    await until_waiting(app, 0)
