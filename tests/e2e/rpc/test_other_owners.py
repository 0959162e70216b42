"""A job of another owner is neither read nor locked: it takes as long as one that is absent."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.longrunning import operations_pb2
from google.longrunning.operations_pb2_grpc import OperationsStub

from jobledger_server.app import App
from jobledger_server.domain.job import JobId
from jobledger_server.sql import sql_store, transaction
from tests.support.databases import several_servers
from tests.support.rpc_caller import Caller

ABSENT = "01890000-0000-7000-8000-000000000000"
ROUNDS = 150

Ask = Callable[[str], Awaitable[Any]]


def asking(call: Caller, channel: grpc.aio.Channel) -> dict[str, Ask]:
    """Return every call about one job that its owner may make, made by another user."""
    operations = OperationsStub(channel)

    def of_job(method: str) -> Ask:
        return lambda job_id: getattr(call, method)(job_id=job_id, user_id="eve")

    def of_operation(method: str) -> Ask:
        request = getattr(operations_pb2, f"{method}Request")
        owner = (("x-jobledger-user", "eve"),)
        return lambda job_id: getattr(operations, method)(
            request(name=f"jobs/{job_id}"), metadata=owner
        )

    async def watch(job_id: str) -> None:
        await call.WatchJob(job_id=job_id, user_id="eve").read()

    jobs = ("GetJob", "CancelJob", "DeleteJob", "ListAssets", "ListTransitions")
    names = ("GetOperation", "CancelOperation", "DeleteOperation", "WaitOperation")
    return {
        **{name: of_job(name) for name in jobs},
        **{name: of_operation(name) for name in names},
        "WatchJob": watch,
    }


async def refused(asked: Awaitable[Any]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await asked
    assert error.value.code() is grpc.StatusCode.NOT_FOUND, error.value


@pytest.fixture
async def channel(app: App) -> grpc.aio.Channel:
    async with grpc.aio.insecure_channel(app.address) as channel:
        yield channel


async def test_no_call_reads_another_owners_job(
    call: Caller, channel: grpc.aio.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    queued, running = await call.job(), await call.running()
    read: list[str] = []
    for module in (sql_store, transaction):
        for name in ("job_from_row", "history_from_row"):
            original = getattr(module, name, None)
            if original is not None:

                def noting(row: Any, original: Any = original) -> Any:
                    read.append(row[0])
                    return original(row)

                monkeypatch.setattr(module, name, noting)
    for ask in asking(call, channel).values():
        for job_id in (queued.id, running.id, ABSENT):
            await refused(ask(job_id))
    assert read == []
    assert (await call.GetJob(job_id=queued.id, user_id="ada")).job == queued
    assert read == [queued.id]


@several_servers  # on SQLite there is one lock, on the file
async def test_a_command_on_another_owners_job_waits_for_no_lock_on_it(
    app: App, call: Caller
) -> None:
    job = await call.job()
    async with asyncio.timeout(4), app.store.transaction() as holder:
        assert await holder.load_jobs([JobId(job.id)])
        for method in (call.CancelJob, call.DeleteJob):
            await refused(method(job_id=job.id, user_id="eve"))


@pytest.mark.parametrize("method", ["GetJob", "CancelJob", "DeleteJob", "WatchJob", "GetOperation"])
async def test_a_large_job_of_another_owner_takes_as_long_as_one_that_is_not_there(
    call: Caller, channel: grpc.aio.Channel, method: str
) -> None:
    """Called in turn, many times: neither is slower in much more than half of the pairs."""
    job = await call.job(parameters={"text": "x" * 250_000})
    ask = asking(call, channel)[method]
    slower = 0
    for number in range(ROUNDS):
        took = {}
        for job_id in (job.id, ABSENT) if number % 2 else (ABSENT, job.id):
            begin = time.perf_counter()
            await refused(ask(job_id))
            took[job_id] = time.perf_counter() - begin
        slower += took[job.id] > took[ABSENT]
    assert 0.3 < slower / ROUNDS < 0.7
