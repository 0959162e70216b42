"""What a call sends and receives does not depend on the payloads of its job."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from google.protobuf.message import Message

from jobledger_server.app import App
from tests.support.in_turn import in_turn
from tests.support.rpc_caller import FULL, Caller, calling

SMALL, LARGE = 10, 250_000
"""Bytes of a job's parameters."""

Measure = Callable[[Caller, Any], Awaitable[Message]]


async def answer(call: Caller, job: Any) -> Any:
    return await call.UpdateProgress(job_id=job.id, attempt=1, progress={"progress": 50})


async def renewal(call: Caller, job: Any) -> Any:
    return await call.UpdateProgress(job_id=job.id, attempt=1)


async def release(call: Caller, job: Any) -> Any:
    return await call.ReleaseJob(job_id=job.id, attempt=1)


async def completion(call: Caller, job: Any) -> Any:
    return await call.MarkCompleted(job_id=job.id, attempt=1)


async def cancellation(call: Caller, job: Any) -> Any:
    return await call.CancelJob(job_id=job.id, user_id=job.user_id)


async def listing(call: Caller, job: Any) -> Any:
    return await call.ListJobs(user_id=job.user_id)


async def batch(call: Caller, job: Any) -> Any:
    return await call.BatchGetJobs(user_id=job.user_id, job_ids=[job.id])


async def watched(call: Caller, job: Any) -> Any:
    """The message of a report, to a watch that has the payloads already."""
    stream = call.WatchJob(job_id=job.id, user_id=job.user_id, view=FULL)
    await stream.read()
    await call.UpdateProgress(job_id=job.id, attempt=1, progress={"progress": 50})
    message = await stream.read()
    stream.cancel()
    return message


async def watched_end(call: Caller, job: Any) -> Any:
    stream = call.WatchJob(job_id=job.id, user_id=job.user_id, view=FULL)
    await stream.read()
    await call.MarkCompleted(job_id=job.id, attempt=1)
    return await stream.read()


async def watched_in_the_feed(call: Caller, job: Any) -> Any:
    stream = call.WatchJobs(user_id=job.user_id, view=FULL)
    while not (await stream.read()).synced:
        pass
    await call.UpdateProgress(job_id=job.id, attempt=1, progress={"progress": 50})
    message = await stream.read()
    stream.cancel()
    return message


async def heartbeat(call: Caller, job: Any) -> Any:
    stream = call.WatchJob(job_id=job.id, user_id=job.user_id, view=FULL)
    while not (message := await stream.read()).heartbeat:
        pass
    stream.cancel()
    return message


@pytest.fixture
async def call(start: Callable[..., Awaitable[App]]) -> AsyncIterator[Caller]:
    app = await start(heartbeat=0.5)
    async with calling(app.address) as call:
        yield call


@in_turn(
    "measure",
    [
        *(answer, renewal, release, completion, cancellation, listing, batch),
        *(watched, watched_end, watched_in_the_feed, heartbeat),
    ],
)
async def test_an_answer_or_a_message_is_as_small_as_a_small_jobs(
    call: Caller, measure: Measure
) -> None:
    sizes = []
    for user, size in (("ada", SMALL), ("bob", LARGE)):
        user_id = f"{user}-{measure.__name__}"  # of one job, for the list and the feed
        job = await call.running(user_id=user_id, parameters={"pad": "x" * size})
        sizes.append((await measure(call, job)).ByteSize())
    small, large = sizes
    assert 0 < large <= 1.1 * small
