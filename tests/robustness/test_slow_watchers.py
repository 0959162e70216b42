"""Watchers that do not read: what the server keeps for them does not grow with what they miss."""

import asyncio
import gc
import itertools
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from google.longrunning.operations_pb2 import WaitOperationRequest
from google.longrunning.operations_pb2_grpc import OperationsStub

from jobledger.v1 import job_pb2
from jobledger_server.app import App
from jobledger_server.domain.job import Job
from jobledger_server.rpc.jobs import feed_streams
from jobledger_server.store import Change
from jobledger_server.tuning import Tuning
from jobledger_server.watch.feed_watch import FeedWatch
from tests.support.databases import sqlite_only
from tests.support.feed_events import events
from tests.support.rpc_caller import COMPLETED, PROCESSING, SMALL_WINDOW, Caller, watching

Start = Callable[..., Awaitable[App]]

WINDOW = 20
PAGE = 10
STALLED = 4
"""Of each kind."""

AT_ONCE = 50

BIG = {"blob": "x" * 10_000}
LABELS = {f"key{number}": "x" * 255 for number in range(32)}


def kept() -> tuple[int, int]:
    """Count the changes and the jobs that are alive in this process, which is the server's."""
    gc.collect()
    # The collector does not know these, so they are found where they are referred to.
    held = gc.get_referents(*gc.get_objects())
    changes = {id(one): one for one in held if type(one) is Change}
    jobs = {id(one) for one in held if type(one) is Job}
    return len(changes), len(jobs.union(id(change.job) for change in changes.values()))


async def change_much(call: Caller, busy: Any, reader: Any, jobs: int) -> set[str]:
    """Create jobs and report on `busy` in turn; return them when `reader` was sent all."""

    async def one() -> str:
        job, _ = await asyncio.gather(
            call.job(parameters=BIG),
            call.UpdateProgress(
                job_id=busy.id, attempt=1, progress={"progress_message": f"step {next(steps)}"}
            ),
        )
        return str(job.id)

    steps = itertools.count()
    made: set[str] = set()
    for _ in range(jobs // AT_ONCE):
        made.update(await asyncio.gather(*(one() for _ in range(AT_ONCE))))
    await told_of(reader, made)
    return made


async def told_of(stream: Any, job_ids: set[str]) -> None:
    while job_ids:
        job_ids = job_ids - {event.job.id for event in events(await stream.read()) if event.job}


@pytest.fixture
def watches(monkeypatch: pytest.MonkeyPatch) -> list[FeedWatch]:
    """The server's watches of many jobs, in the order in which they came."""
    watches: list[FeedWatch] = []

    def watch(*arguments: Any) -> FeedWatch:
        watches.append(FeedWatch(*arguments))
        return watches[-1]

    monkeypatch.setattr(feed_streams, "FeedWatch", watch)
    return watches


async def to_the_next_page(stream: Any, watch: FeedWatch) -> list[Any]:
    """Read until the server has read the next page; return what was sent.

    How many messages that takes is not known: some were on their way.
    """
    before, told = watch.cursor, []
    while watch.cursor == before:
        told += events(await stream.read())
    return told


@pytest.mark.slow
@sqlite_only
@pytest.mark.parametrize(
    "tuning", [Tuning(buffered_changes=WINDOW, feed_page=PAGE, shared_messages=WINDOW)]
)
async def test_stalled_watches_use_bounded_memory_under_any_number_of_changes(
    start: Start, watches: list[FeedWatch]
) -> None:
    # The change buffer; nothing for stalled watches, but a page for each that reads the table just
    # now; and what the last commit has not released yet.
    limit = WINDOW + PAGE * (STALLED + 1) + AT_ONCE
    app = await start()
    before = kept()  # by other tests that are loaded
    async with AsyncExitStack() as stack:

        async def channel(options: Any = ()) -> Caller:
            opened = grpc.aio.insecure_channel(app.address, options)
            # The watches are open until the test ends.
            return Caller(await stack.enter_async_context(opened), timeout=120)

        call = await channel()
        busy = await call.running(parameters=BIG)
        of_all, of_one = [], []
        for _ in range(STALLED):
            slow = await channel(SMALL_WINDOW)
            of_all.append(
                await stack.enter_async_context(watching(slow.WatchJobs(view="JOB_VIEW_FULL")))
            )
            watch = slow.WatchJob(job_id=busy.id, user_id="ada")
            of_one.append(await stack.enter_async_context(watching(watch)))
            await of_all[-1].read()  # one after the other: then `watches` has their order
            await of_one[-1].read()
        reader = await stack.enter_async_context(watching(call.WatchJobs()))

        made = await change_much(call, busy, reader, 100)
        stalled = watches[:STALLED]
        sent = []
        for stream, watch in zip(of_all, stalled, strict=True):
            # Now it has a message that is still to be sent.
            sent += await to_the_next_page(stream, watch)
        made |= await change_much(call, busy, reader, AT_ONCE)  # by then they are full again
        stood, first = [watch.cursor for watch in stalled], kept()
        made |= await change_much(call, busy, reader, 1000)
        for counted in (first, kept()):
            assert max(now - then for now, then in zip(counted, before, strict=True)) < limit
        # They did stall: the server has waited for them ever since, and nobody cut them off.
        assert [watch.cursor for watch in stalled] == stood
        assert max(cursor.seq for cursor in stood) < app.hub.seq - 2000
        assert app.hub.watches == 2 * STALLED + 1

        ended = (await call.MarkCompleted(job_id=busy.id, attempt=1)).job
        left = made - {event.job.id for event in sent if event.job}
        for stream in of_all:
            await told_of(stream, left | {busy.id})
        for stream in of_one:
            messages = []
            while (message := await stream.read()) is not grpc.aio.EOF:
                messages.append(message)
            assert messages[-1].job == ended
            assert len(messages) < 50  # of more than 1,000 reports
            (last,) = [step for message in messages for step in message.transitions]
            assert (last.from_status, last.to_status) == (PROCESSING, COMPLETED)


@sqlite_only
@pytest.mark.parametrize("tuning", [Tuning(buffered_bytes=1)])  # else jobs are shared
async def test_a_stalled_watch_keeps_its_message_but_not_the_job(start: Start) -> None:
    """Nor all that comes after it in its page."""
    count = 20
    app = await start()
    async with AsyncExitStack() as stack:

        async def stalled() -> Caller:
            channel = grpc.aio.insecure_channel(app.address, SMALL_WINDOW)
            return Caller(await stack.enter_async_context(channel))

        call = await stalled()
        # Far more than fits a window, in either view.
        content = {"parameters": {"blob": "x" * 250_000}, "labels": LABELS}
        jobs = [await call.job(**content) for _ in range(count)]
        _, before = kept()
        streams = [(await stalled()).WatchJob(job_id=job.id, user_id="ada") for job in jobs]
        streams += [(await stalled()).WatchJobs() for _ in jobs]
        for stream in streams:
            stack.callback(stream.cancel)
            await stream.initial_metadata()  # with it goes as much of the message as fits
        assert app.hub.watches == 2 * count
        _, after = kept()
        assert after - before <= 2


@sqlite_only
@pytest.mark.parametrize("tuning", [Tuning(buffered_bytes=1)])  # else jobs are shared
async def test_a_waiting_operation_keeps_no_job(start: Start) -> None:
    count = 20
    app = await start()
    async with grpc.aio.insecure_channel(app.address) as channel:
        call, operations = Caller(channel), OperationsStub(channel)
        job = await call.running(parameters=BIG)
        _, before = kept()
        request = WaitOperationRequest(name=f"jobs/{job.id}")
        waits = []
        for _ in range(count):
            metadata = (("x-jobledger-user", "ada"),)
            waits.append(operations.WaitOperation(request, metadata=metadata, timeout=60))
            while app.hub.watches < len(waits):
                await asyncio.sleep(0.001)
            # A wait subscribes, then reads the job; reads are answered in their order.
            await call.GetJob(job_id=job.id, user_id="ada")
        _, after = kept()
        assert after - before <= 2
        ended = (await call.MarkCompleted(job_id=job.id, attempt=1)).job
        for wait in waits:
            answer = job_pb2.Job.FromString((await wait).response.value)
            answer.ClearField("parameters")
            assert answer == ended


@pytest.fixture
def serialized() -> Iterator[Callable[[], int]]:
    """Return how many bytes are alive that the server has allocated to serialize messages."""
    made_here = tracemalloc.Filter(inclusive=True, filename_pattern="*/rpc/messages.py")

    def count() -> int:
        gc.collect()
        traces = tracemalloc.take_snapshot().filter_traces([made_here]).statistics("filename")
        return sum(trace.size for trace in traces)

    tracemalloc.start()
    yield count
    tracemalloc.stop()


@sqlite_only
@pytest.mark.parametrize("tuning", [Tuning(shared_message_bytes=200_000)])
async def test_the_messages_kept_for_other_watchers_are_bounded_by_bytes(
    serialized: Callable[[], int], start: Start
) -> None:
    app = await start()
    async with grpc.aio.insecure_channel(app.address) as channel:
        call = Caller(channel)
        async with watching(call.WatchJobs(view="JOB_VIEW_FULL")) as stream:
            for size in (50_000, 0, 90_000, 120_000, 50_000):
                job = await call.job(parameters={"blob": "x" * size})
                await told_of(stream, {job.id})
                assert size < serialized() <= 210_000
