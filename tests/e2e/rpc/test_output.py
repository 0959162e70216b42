"""WatchOutput and ReadOutput: every byte once, in order, from any server, until the job's end."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from jobledger.v1.error_reason_pb2 import ErrorReason
from jobledger_server.app import App
from tests.support.databases import both_databases, several_servers
from tests.support.rpc_caller import COMPLETED, QUEUED, Caller, calling, refusal
from tests.support.work_stream import working

Start = Callable[..., Any]

MIB = 1024 * 1024


async def append(call: Caller, job: Any, *texts: str, stream: str = "", attempt: int = 1) -> int:
    """Append texts one after the other; return the offset after them."""
    for text in texts:
        answer = await call.AppendOutput(
            job_id=job.id, attempt=attempt, stream=stream, data=text.encode()
        )
    return int(answer.next_offset)


async def messages(stream: Any) -> list[Any]:
    """Return all messages of a watch that are left, until it closes."""
    found = []
    while (message := await stream.read()) is not grpc.aio.EOF:
        found.append(message)
    return found


async def read_up_to(stream: Any, offset: int) -> list[Any]:
    """Return the messages of a watch up to the one that ends at an offset."""
    found = [await stream.read()]
    while found[-1].next_offset < offset:
        found.append(await stream.read())
    return found


def joined(found: list[Any]) -> bytes:
    """Return the data of messages, each of which begins where the one before it ends."""
    at = found[0].offset
    for message in found:
        assert message.offset == at
        at = message.next_offset
        assert at == message.offset + len(message.data)
    return b"".join(message.data for message in found)


@both_databases
async def test_a_watch_is_sent_what_is_stored_then_what_comes_and_closes_with_the_job(
    call: Caller,
) -> None:
    job = await call.running()
    await append(call, job, "one ", "two ")
    stream = call.WatchOutput(job_id=job.id, user_id="ada")
    found = await read_up_to(stream, 8)
    assert found[-1].up_to_date
    await append(call, job, "three")
    found += await read_up_to(stream, 13)
    assert {message.attempt for message in found if message.data} == {1}
    await append(call, job, "!")
    await call.MarkCompleted(job_id=job.id, attempt=1)
    # Its end can be read as soon as the stream has closed.
    found += await messages(stream)
    assert joined(found) == b"one two three!"
    assert [message.closed for message in found] == [False] * (len(found) - 1) + [True]
    assert (await call.GetJob(job_id=job.id, user_id="ada")).job.status == COMPLETED
    # What was sent is sent again to who asks for it again, and closes at once.
    again = await messages(call.WatchOutput(job_id=job.id, user_id="ada", after_offset=5))
    assert (again[0].offset, joined(again), again[-1].closed) == (5, b"wo three!", True)


async def test_another_attempt_is_said_and_a_message_is_of_one(call: Caller) -> None:
    job = await call.running(retry_policy={"max_attempts": 3})
    stream = call.WatchOutput(job_id=job.id, user_id="ada")
    await append(call, job, "once")
    await call.ReleaseJob(job_id=job.id, attempt=1)
    (second,) = (await call.ClaimJobs(worker_id="w2", job_types=["render"])).jobs
    await append(call, second, "again", attempt=2)
    late = await refusal(call.AppendOutput(job_id=job.id, attempt=1, data=b"late", number=9))
    assert (late.code, late.reason) == (StatusCode.ABORTED, "LEASE_LOST")
    found = await read_up_to(stream, 9)
    parts = [(message.attempt, message.data) for message in found if message.data]
    assert parts == [(1, b"once"), (2, b"again")]
    whole = await call.ReadOutput(job_id=job.id, user_id="ada")
    assert (whole.attempt, whole.data, whole.up_to_date) == (1, b"once", False)


async def test_output_over_work_keeps_its_place_and_its_results_say_where_it_ends(
    call: Caller, channel: Any
) -> None:
    await call.job()
    async with working(channel, slots=1) as worker:
        (job,) = await worker.jobs()
        ids = {"job_id": job.id, "attempt": 1}
        await worker.send(
            updates=[
                {**ids, "output": {"data": b"one", "number": 1}},
                {**ids, "progress": {"progress": 50}},
                {**ids, "output": {"data": b"log", "stream": "log", "content_type": "text/x-log"}},
                {**ids, "output": {"data": b"two", "number": 2}},
                {**ids, "output": {"data": b"two", "number": 2}},
                {**ids, "output": {"data": b"", "number": 3}},
                {**ids, "output": {"data": b"four", "number": 4}},
                {**ids, "finish": {"status": COMPLETED}},
                {**ids, "output": {"data": b"late", "number": 4}},
            ]
        )
        results = await worker.results(9)
    assert [result.next_offset for result in results] == [3, 0, 3, 6, 6, 0, 0, 0, 0]
    assert [result.error.code for result in results] == [
        *[0] * 5,
        StatusCode.INVALID_ARGUMENT.value[0],
        StatusCode.ABORTED.value[0],
        0,
        StatusCode.FAILED_PRECONDITION.value[0],
    ]
    gap = results[6].error
    assert (gap.reason, gap.metadata["number"]) == (ErrorReason.ERROR_REASON_OUTPUT_GAP, "3")
    assert results[0].version == job.version  # output is no change
    read = (await call.GetJob(job_id=job.id, user_id="ada")).job
    assert {each.name: each.content_type for each in read.output_streams} == {
        "": "text/plain; charset=utf-8",
        "log": "text/x-log",
    }
    assert joined(await messages(call.WatchOutput(job_id=job.id, user_id="ada"))) == b"onetwo"


@asynccontextmanager
async def two(start: Start) -> AsyncIterator[tuple[Caller, Caller]]:
    """Call two servers of a database."""
    async with AsyncExitStack() as stack:
        here, there = await start(), await start()
        yield (
            await stack.enter_async_context(calling(here.address)),
            await stack.enter_async_context(calling(there.address)),
        )


@several_servers
async def test_watches_at_any_server_see_what_is_appended_at_others(start: Start) -> None:
    async with two(start) as callers:
        job = await callers[0].running()
        streams = [each.WatchOutput(job_id=job.id, user_id="ada") for each in callers]
        expected = ""
        for number in range(30):
            text = f"{number} "
            expected += text
            await append(callers[number % 2], job, text)
        reading = [asyncio.create_task(messages(stream)) for stream in streams]
        await callers[1].MarkCompleted(job_id=job.id, attempt=1)
        for found in await asyncio.gather(*reading):
            assert joined(found).decode() == expected
            assert found[-1].closed


@several_servers
async def test_a_reader_hops_between_servers_and_misses_nothing(start: Start) -> None:
    async with two(start) as callers:
        job = await callers[0].running()
        got, offset = b"", 0
        for number in range(12):
            end = await append(callers[number % 2], job, f"<{number}>")
            stream = callers[(number // 2) % 2].WatchOutput(
                job_id=job.id, user_id="ada", after_offset=offset
            )
            found = await read_up_to(stream, end)
            stream.cancel()
            got += joined(found)
            offset = found[-1].next_offset
        assert got.decode() == "".join(f"<{number}>" for number in range(12))


async def test_a_watch_begins_so_many_bytes_before_the_end(call: Caller) -> None:
    job = await call.running()
    await append(call, job, "0123", "4567")
    for last, expected in ((3, b"567"), (5, b"34567"), (0, b""), (99, b"01234567")):
        stream = call.WatchOutput(job_id=job.id, user_id="ada", last_bytes=last)
        assert joined(await read_up_to(stream, 8)) == expected
        stream.cancel()
        read = await call.ReadOutput(job_id=job.id, user_id="ada", last_bytes=last)
        assert (read.data, read.next_offset, read.up_to_date) == (expected, 8, True)
    some = await call.ReadOutput(job_id=job.id, user_id="ada", offset=2, max_bytes=3)
    assert (some.data, some.next_offset, some.up_to_date, some.closed) == (b"234", 5, False, False)
    nothing = await call.ReadOutput(job_id=job.id, user_id="ada", stream="none")
    assert (nothing.data, nothing.attempt, nothing.up_to_date) == (b"", 0, True)


async def test_who_is_ahead_of_a_stream_waits_and_disturbs_nobody(call: Caller) -> None:
    job = await call.running()
    ahead = call.WatchOutput(job_id=job.id, user_id="ada", after_offset=2**62)
    assert (await ahead.read()).next_offset == 2**62
    stream = call.WatchOutput(job_id=job.id, user_id="ada")
    await stream.read()
    await append(call, job, "one")
    assert (await stream.read()).data == b"one"
    await call.MarkCompleted(job_id=job.id, attempt=1)
    assert joined(await messages(stream)) == b""
    last = await messages(ahead)
    assert (joined(last), last[-1].closed) == (b"", True)


@pytest.mark.parametrize("stored", [64 * 1024])
async def test_what_is_not_stored_any_more_is_skipped_and_said(start: Start, stored: int) -> None:
    app = await start(job_output=stored)
    async with calling(app.address) as call:
        job = await call.running()
        stream = call.WatchOutput(job_id=job.id, user_id="ada")
        for number in range(12):
            end = await append(call, job, str(number % 10) * 9000)
        await call.MarkCompleted(job_id=job.id, attempt=1)
        live = await messages(stream)
        assert len(joined(live)) == end  # it kept up
        first, *rest = await messages(call.WatchOutput(job_id=job.id, user_id="ada"))
        assert first.offset == first.truncated_before > 0
        assert [message.truncated_before for message in rest] == [0] * len(rest)
        text = joined([first, *rest]).decode()
        assert stored - 9000 <= len(text) <= stored + stored // 8
        whole = "".join(str(number % 10) * 9000 for number in range(12))
        assert whole.endswith(text)
        read = await call.ReadOutput(job_id=job.id, user_id="ada", offset=5)
        assert (read.offset, read.truncated_before) == (first.offset, first.offset)


async def test_a_reader_is_sent_the_rest_of_a_piece_that_its_last_message_had_no_room_for(
    start: Start,
) -> None:
    app = await start(job_output=2 * MIB)
    async with calling(app.address) as call:
        job = await call.running()
        for _ in range(20):
            end = await append(call, job, "x" * 60_000)  # of which a message has no whole number
        await call.MarkCompleted(job_id=job.id, attempt=1)
        found = await messages(call.WatchOutput(job_id=job.id, user_id="ada"))
        assert [message.truncated_before for message in found] == [0] * len(found)
        assert len(joined(found)) == end
        assert len(found[0].data) == MIB


async def test_a_heartbeat_says_that_the_stream_is_alive(start: Start) -> None:
    app = await start(heartbeat=0.05)
    async with calling(app.address) as call:
        job = await call.job()
        stream = call.WatchOutput(job_id=job.id, user_id="ada")
        for _ in range(3):
            message = await stream.read()
            assert (message.next_offset, message.up_to_date, message.closed) == (0, True, False)


async def test_output_goes_with_its_job(call: Caller) -> None:
    job = await call.running()
    await append(call, job, "one")
    await call.MarkCompleted(job_id=job.id, attempt=1)
    await call.DeleteJob(job_id=job.id, user_id="ada")
    for refused in (
        await refusal(call.ReadOutput(job_id=job.id, user_id="ada")),
        await refusal(call.WatchOutput(job_id=job.id, user_id="ada").read()),
        await refusal(call.AppendOutput(job_id=job.id, attempt=1, data=b"x")),
    ):
        assert (refused.code, refused.reason) == (StatusCode.NOT_FOUND, "JOB_NOT_FOUND")


@pytest.mark.parametrize("read", ["tail", "read"])
async def test_a_job_that_is_deleted_while_its_output_is_read_is_not_found(
    app: App, call: Caller, monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    """The answer has not read all of it, so it must not say that there is no more."""
    job = await call.running()
    await append(call, job, "one")
    await call.MarkCompleted(job_id=job.id, attempt=1)
    original = getattr(app.store.outputs, read)

    async def after_the_deletion(*arguments: Any, **options: Any) -> Any:
        await call.DeleteJob(job_id=job.id, user_id="ada")
        return await original(*arguments, **options)

    monkeypatch.setattr(app.store.outputs, read, after_the_deletion)
    refused = await refusal(call.ReadOutput(job_id=job.id, user_id="ada"))
    assert (refused.code, refused.reason) == (StatusCode.NOT_FOUND, "JOB_NOT_FOUND")


async def test_a_creator_says_that_too_much_is_refused_and_a_rerun_has_it_too(
    call: Caller,
) -> None:
    job = await call.running(refuse_output=True)
    assert job.refuse_output
    for _ in range(16):
        await append(call, job, "x" * 64 * 1024)
    refused = await refusal(call.AppendOutput(job_id=job.id, attempt=1, data=b"x"))
    assert (refused.code, refused.metadata["limit"]) == (
        StatusCode.RESOURCE_EXHAUSTED,
        "output_bytes_per_job",
    )
    assert (refused.metadata["value"], refused.metadata["scope"]) == ("1048576", "request")
    await call.MarkCompleted(job_id=job.id, attempt=1)
    again = (await call.RerunJob(job_id=job.id, user_id="ada")).job
    assert (again.refuse_output, again.status, len(again.output_streams)) == (True, QUEUED, 0)
