"""Quotas of an identity: each of them, its scope, and that other callers are not affected."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from google.protobuf import struct_pb2
from grpc import StatusCode

from jobledger.v1 import job_pb2, job_service_pb2
from jobledger_server.admission.rates import CALL_BYTES
from tests.support.access_file import rule
from tests.support.rpc_caller import Caller, Refusal, decoded, refusal, watching
from tests.support.work_stream import working


def caller(name: str, **quotas: object) -> str:
    lines = "".join(f"{key} = {value}\n" for key, value in quotas.items())
    roles = 'roles = ["owner", "worker"]\nusers = ["*"]\njob_types = ["*"]'
    return rule(name, f"{roles}\n[caller.quotas]\n{lines}")


class Callers:
    """Calls by name, each over connections of its own."""

    def __init__(self, address: str, stack: AsyncExitStack) -> None:
        self._address = address
        self._stack = stack

    async def channel(self) -> grpc.aio.Channel:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.aio.insecure_channel(self._address, options)
        return await self._stack.enter_async_context(channel)

    async def calls(self, name: str) -> Caller:
        return Caller(await self.channel(), token=name)


@pytest.fixture
async def callers(start_with: Any) -> AsyncIterator[Any]:
    """Serve callers with quotas, and one without, `free`."""
    async with AsyncExitStack() as stack:

        async def serve(*limited: str, **settings: Any) -> Callers:
            app = await start_with("".join(limited) + caller("free"), **settings)
            return Callers(app.address, stack)

        yield serve


def is_own(refused: Refusal, limit: str, value: str, caller: str = "eve") -> bool:
    """Whether a refusal names a limit of this caller, and says when to try again."""
    facts = {"limit": limit, "value": value, "scope": "caller", "caller": f"token:{caller}"}
    delay = refused.details["RetryInfo"].retry_delay
    return (
        (refused.code, refused.reason) == (StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED")
        and refused.metadata == facts
        and delay.seconds + delay.nanos / 1e9 > 0
    )


async def test_calls_a_second_are_limited_on_all_connections_of_an_identity(callers: Any) -> None:
    served = await callers(caller("eve", calls_per_second=5))
    eves = [await served.calls("eve") for _ in range(5)]
    free = await served.calls("free")
    begun = time.monotonic()
    answers = await asyncio.gather(
        *(eve.ListJobs(user_id="ada") for eve in eves for _ in range(10)), return_exceptions=True
    )
    refused = [decoded(each) for each in answers if isinstance(each, grpc.aio.AioRpcError)]
    seconds = time.monotonic() - begun
    assert 5 <= len(answers) - len(refused) <= 5 + 5 * max(1.0, seconds)
    assert all(is_own(each, "calls_per_second", "5") for each in refused)
    for _ in range(10):
        await free.ListJobs(user_id="ada")
    async with asyncio.timeout(30):
        while True:  # it may call again after the retry delay
            try:
                await eves[0].ListJobs(user_id="ada")
            except grpc.aio.AioRpcError as error:
                delay = decoded(error).details["RetryInfo"].retry_delay
                assert 0 < delay.nanos <= 200_000_000
                await asyncio.sleep(delay.nanos / 1e9)
            else:
                break


@pytest.mark.parametrize("large", ["request", "answer"])
async def test_large_messages_count_as_several_calls(callers: Any, large: str) -> None:
    """Else a caller within its quotas keeps the disk busy for everybody."""
    served = await callers(caller("eve", calls_per_second=2))
    eve, free = await served.calls("eve"), await served.calls("free")
    parameters = struct_pb2.Struct()
    parameters["text"] = "x" * 7 * CALL_BYTES
    if large == "request":
        await refusal(eve.CreateJob(user_id="ada", job_type="", parameters=parameters))
    else:
        job = await free.job(parameters=parameters)
        await eve.GetJob(job_id=job.id, user_id=job.user_id)
    refused = await refusal(eve.ListJobs(user_id="bob"))
    assert is_own(refused, "calls_per_second", "2")
    assert refused.details["RetryInfo"].retry_delay.seconds >= 1


async def test_jobs_created_a_second_count_each_job_of_a_batch(callers: Any) -> None:
    served = await callers(caller("eve", jobs_per_second=0.5))
    eve, free = await served.calls("eve"), await served.calls("free")
    many = [job_service_pb2.CreateJobRequest(job_type="t")] * 100
    await eve.BatchCreateJobs(user_id="ada", requests=many)
    refused = await refusal(eve.CreateJob(user_id="ada", job_type="t"))
    assert is_own(refused, "jobs_per_second", "0.5")
    assert 100 <= refused.details["RetryInfo"].retry_delay.seconds <= 200
    await free.BatchCreateJobs(user_id="ada", requests=many)
    await eve.ListJobs(user_id="ada")


async def test_a_request_is_not_parsed_if_its_caller_can_create_no_job(callers: Any) -> None:
    served = await callers(caller("eve", jobs_per_second=0.001))
    eve, free = await served.calls("eve"), await served.calls("free")
    await eve.job()
    for labels in ({"": ""}, {"": "x" * 10_000}):  # parsed in the event loop, and in a thread
        invalid = {"user_id": "ada", "job_type": "t", "labels": labels}
        for call, reason in ((free, "INVALID_FIELD"), (eve, "LIMIT_EXCEEDED")):
            assert (await refusal(call.CreateJob(**invalid))).reason == reason


async def test_unfinished_jobs_are_limited_for_each_user(callers: Any) -> None:
    served = await callers(caller("eve", unfinished_jobs=3))
    eve, free = await served.calls("eve"), await served.calls("free")
    jobs = [await eve.job() for _ in range(3)]
    for called in (
        eve.CreateJob(user_id="ada", job_type="t"),
        eve.BatchCreateJobs(
            user_id="ada", requests=[job_service_pb2.CreateJobRequest(job_type="t")]
        ),
    ):
        assert is_own(await refusal(called), "unfinished_jobs", "3")
    await eve.job(user_id="bob")
    await free.job()
    for job in jobs[:2]:
        await eve.CancelJob(user_id="ada", job_id=job.id)
    async with asyncio.timeout(30):
        while True:  # what has ended is counted again within a second
            try:
                await eve.job()
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.1)
            else:
                break
    # Two of ada's jobs are unfinished, one by each of the two callers: one more may be created.
    assert is_own(await refusal(eve.job()), "unfinished_jobs", "3")


async def test_a_quota_of_watches_may_be_below_or_above_the_default_share(callers: Any) -> None:
    served = await callers(
        caller("eve", watches=2), caller("gateway", watches=8), max_watches=10, caller_share=0.4
    )
    async with AsyncExitStack() as streams:

        async def open_watch(name: str) -> None:
            watch = (await served.calls(name)).WatchJobs(user_id="ada")
            await (await streams.enter_async_context(watching(watch))).read()

        for _ in range(2):
            await open_watch("eve")
        assert is_own(await refusal(open_watch("eve")), "watches", "2")
        for _ in range(8):
            await open_watch("gateway")
        await open_watch("free")  # less than an equal part


async def test_open_streams_of_workers_are_limited(callers: Any) -> None:
    served = await callers(caller("eve", work_streams=1))
    channel = await served.channel()
    async with working(channel, token="eve"):
        async with working(channel, token="eve") as second:
            assert is_own(await refusal(second.read()), "work_streams", "1")
        async with working(channel, token="free") as other:
            assert await other.end() is StatusCode.OK


async def test_the_jobs_that_workers_say_they_hold_count_in_bytes(callers: Any) -> None:
    served = await callers(caller("eve", waiting_bytes=100_000))
    channel = await served.channel()
    held = [job_pb2.Job(id=f"{number:036}", attempt=1) for number in range(100)]
    async with working(channel, token="eve", holding=held) as first:
        assert len(await first.signals(100)) == 100  # none of them is there
        async with working(channel, token="eve", holding=held) as second:
            assert is_own(await refusal(second.read()), "waiting_bytes", "100000")
    async with working(channel, token="eve", holding=held) as third:
        assert len(await third.signals(100)) == 100


async def test_queued_request_bytes_are_limited(callers: Any) -> None:
    served = await callers(caller("eve", waiting_bytes=100_000))
    eve, free = await served.calls("eve"), await served.calls("free")
    large = {"text": "x" * 60_000}
    made = await asyncio.gather(
        *(eve.job(parameters=large) for _ in range(20)), return_exceptions=True
    )
    refused = [decoded(each) for each in made if isinstance(each, grpc.aio.AioRpcError)]
    assert refused
    for each in refused:
        assert each.metadata["caller"] == "token:eve"
        assert each.metadata["value"] == "100000"
        assert "bytes" in each.metadata["limit"]
    await asyncio.gather(*(free.job(parameters=large) for _ in range(20)))


async def failed_jobs(call: Caller, *users: str) -> None:
    """Make jobs that a step of RerunJobs matches."""
    for user_id in users:
        job = await call.job(user_id)
        await call.CancelJob(user_id=user_id, job_id=job.id)


async def test_jobs_that_are_repeated_count_as_created(callers: Any) -> None:
    served = await callers(caller("eve", jobs_per_second=0.01), caller("tom", unfinished_jobs=2))
    eve, tom, free = [await served.calls(name) for name in ("eve", "tom", "free")]
    await failed_jobs(free, "ada", "bob", "ada", "bob", "ada")
    # One step for several users is one batch: a larger one is admitted when the quota is unused.
    cancelled = {"cancelled": True}
    answer = await eve.RerunJobs(max_jobs=3, filter=cancelled)
    assert (answer.matched, answer.changed) == (3, 3)
    job = (await free.ListJobs(user_id="ada", filter={"cancelled": True})).jobs[-1]
    for call in (eve.RerunJobs(filter=cancelled), eve.RerunJob(user_id="ada", job_id=job.id)):
        assert is_own(await refusal(call), "jobs_per_second", "0.01")
    dry = await eve.RerunJobs(validate_only=True, filter=cancelled)
    assert (dry.matched, dry.changed) == (2, 0)  # nothing is created

    # Of each user there may be two.
    await failed_jobs(free, "sue", "sue", "sue", "ann")
    refused = await refusal(tom.RerunJobs(filter=cancelled, user_id="sue"))
    assert is_own(refused, "unfinished_jobs", "2", "tom")
    assert (await tom.RerunJobs(filter=cancelled, user_id="sue", max_jobs=2)).changed == 2
    refused = await refusal(tom.RerunJobs(filter=cancelled, user_id="sue"))
    assert is_own(refused, "unfinished_jobs", "2", "tom")
    assert (await tom.RerunJobs(filter=cancelled, user_id="ann")).changed == 1
    assert (await free.RerunJobs(filter=cancelled, user_id="sue")).changed == 1
