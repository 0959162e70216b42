"""report_progress() of both clients, on streams that break, fall silent and lie."""

import asyncio
import contextlib
import functools
import queue
import threading
import time

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo

from jobledger import (
    CHANNEL_OPTIONS,
    AccessDenied,
    AsyncClient,
    Client,
    JobledgerError,
    Unavailable,
)
from jobledger.core import async_reports, reports
from jobledger.v1 import worker_service_pb2 as pb
from jobledger.v1.worker_service_pb2_grpc import WorkerServiceStub
from tests.e2e.client.report_server import (
    aborts,
    acknowledgement,
    acknowledges,
    reads_on,
    refuses,
)
from tests.support.fault_server import rich

AWAY = grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("how", ["broken", "moved", "ended", "reset"])
async def test_what_was_not_acknowledged_is_sent_again_and_nothing_else(report, report_server, how):
    retry = RetryInfo(retry_delay=Duration())
    then = {
        "broken": aborts(AWAY),
        "moved": refuses(rich(AWAY, "UNAVAILABLE", retry)),
        "ended": None,
        "reset": aborts(grpc.StatusCode.INTERNAL),
    }[how]
    report_server.scripts = [acknowledges(2, read=3, then=then)]
    async with report(report_server.target) as send:
        answers = await asyncio.gather(*(send("j", progress) for progress in range(5)))
    assert [answer.job.progress for answer in answers] == list(range(5))
    first, second = report_server.streams
    assert sorted(first) == [("j", progress) for progress in range(5)]
    assert second == first[2:]


async def test_a_stream_is_opened_with_the_first_report_and_again_with_the_next(
    report, report_server
):
    report_server.scripts = [acknowledges(1)]
    async with report(report_server.target) as send:
        assert report_server.streams == []
        await send("j", 1)
        # The server has ended the stream, and nothing is to be reported.
        await send("j", 2)
    assert report_server.streams == [[("j", 1)], [("j", 2)]]


async def test_a_service_that_is_away_is_told_within_the_timeout(report):
    started = time.monotonic()
    async with report("127.0.0.1:1", timeout=0.7) as send:
        with pytest.raises(Unavailable, match="not acknowledged within"):
            await send("j", 1)
    assert 0.6 < time.monotonic() - started < 5


async def test_a_silent_stream_is_left_when_a_report_has_waited_in_vain(report, report_server):
    report_server.scripts = [reads_on]
    async with report(report_server.target, timeout=2) as send:
        with pytest.raises(Unavailable, match="not acknowledged within"):
            await send("a", 1)
        assert (await send("b", 2)).job.id == "b"
    # What nobody waits for any more is not sent again.
    assert report_server.streams == [[("a", 1)], [("b", 2)]]


async def test_a_stream_that_still_answers_is_not_left_for_one_that_waits(report, report_server):
    first, second = threading.Event(), threading.Event()

    def answers_slowly(requests, context):
        held = [next(requests) for _ in range(2)]
        first.wait(20)
        yield acknowledgement(held[0])
        second.wait(20)
        yield acknowledgement(held[1])
        yield from acknowledges()(requests, context)

    report_server.scripts = [answers_slowly]
    async with report(report_server.target, timeout=3) as send:
        answered = asyncio.ensure_future(send("answered", 1))
        await asyncio.to_thread(report_server.received, 0, 1)
        late = asyncio.ensure_future(send("late", 1))
        await asyncio.to_thread(report_server.received, 0, 2)
        first.set()
        assert (await answered).job.id == "answered"
        with pytest.raises(Unavailable):
            await late
        second.set()
        assert (await send("next", 1)).job.id == "next"
    assert len(report_server.streams) == 1


async def test_a_refused_stream_is_told_to_all_that_wait_and_the_next_report_tries_again(
    report, report_server
):
    def refuses_after(requests, context):
        next(requests)
        next(requests)
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "not you")
        yield

    report_server.scripts = [refuses_after]
    async with report(report_server.target) as send:
        errors = await asyncio.gather(send("a", 1), send("b", 1), return_exceptions=True)
        assert [(type(error), error.message) for error in errors] == [(AccessDenied, "not you")] * 2
        assert errors[0] is not errors[1]
        assert (await send("a", 2)).applied


async def test_a_database_that_is_away_is_waited_for(report, report_server):
    error = pb.ReportError(code=AWAY.value[0], message="the database is away")
    report_server.scripts = [acknowledges(2, then=acknowledges(), error=error, applied=False)]
    async with report(report_server.target) as send:
        assert (await send("j", 1)).applied
    assert report_server.streams == [[("j", 1)] * 3]


async def test_a_database_that_stays_away_is_told_within_the_timeout(report, report_server):
    error = pb.ReportError(code=AWAY.value[0], message="the database is away")
    report_server.scripts = [acknowledges(error=error, applied=False)]
    async with report(report_server.target, timeout=2) as send:
        with pytest.raises(Unavailable, match="the database is away"):
            await send("j", 1)


async def test_an_error_that_a_newer_server_has_is_still_one(report, report_server):
    error = pb.ReportError(code=9, reason=999, message="new", metadata={"a": "b"})
    report_server.scripts = [acknowledges(error=error)]
    async with report(report_server.target) as send:
        with pytest.raises(JobledgerError, match="new") as refused:
            await send("j", 1)
    assert refused.value.code is grpc.StatusCode.FAILED_PRECONDITION
    assert (refused.value.reason, refused.value.metadata) == ("", {"a": "b"})


async def test_an_acknowledgement_too_many_is_nobodys(report, report_server):
    def babbles(requests, context):
        request = next(requests)
        yield acknowledgement(request)
        yield acknowledgement(request)
        for _ in requests:
            pass

    report_server.scripts = [babbles]
    async with report(report_server.target, timeout=5) as send:
        assert (await send("a", 1)).job.id == "a"
        assert (await send("b", 2)).job.id == "b"
    assert report_server.streams[-1] == [("b", 2)]


async def test_no_more_are_sent_than_may_wait(report, report_server, monkeypatch):
    for module in (async_reports, reports):
        monkeypatch.setattr(module, "MAX_WAITING", 5)
    outstanding = []

    def reads_faster_than_it_answers(requests, context):
        unanswered = queue.Queue()

        def read():
            for _ in range(20):
                unanswered.put(next(requests))

        reading = threading.Thread(target=read)
        reading.start()
        report_server.received(0, 5)
        for _ in range(20):
            request = unanswered.get(timeout=20)
            time.sleep(0.02)  # for those that should not come
            outstanding.append(unanswered.qsize() + 1)
            yield acknowledgement(request)
        reading.join()

    report_server.scripts = [reads_faster_than_it_answers]
    async with report(report_server.target) as send:
        answers = await asyncio.gather(*(send("j", progress) for progress in range(20)))
    assert sorted(answer.job.progress for answer in answers) == list(range(20))
    assert max(outstanding) == 5


async def test_those_that_gave_up_leave_their_room_to_the_next(report, report_server, monkeypatch):
    for module in (async_reports, reports):
        monkeypatch.setattr(module, "MAX_WAITING", 1)
    report_server.scripts = [reads_on]
    async with report(report_server.target, timeout=0.7) as send:
        errors = await asyncio.gather(*(send("j", at) for at in range(3)), return_exceptions=True)
        assert isinstance(errors[0], Unavailable)
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(Unavailable):
                    assert (await send("k", 1)).job.id == "k"
                    return


async def test_closing_ends_what_is_under_way_and_leaves_nothing_behind(report_server):
    report_server.scripts = [reads_on]
    before = asyncio.all_tasks()
    async with AsyncClient(report_server.target) as client:
        async with client.report_progress() as reports:
            sending = asyncio.create_task(reports.send("j", 1))
            await asyncio.to_thread(report_server.received, 0, 1)
        with pytest.raises(JobledgerError, match="closed"):
            await sending
        with pytest.raises(JobledgerError, match="closed"):
            await reports.send("j", 1)
        await reports.close()
        left = asyncio.all_tasks() - before
        assert not {task.get_name() for task in left if "jobledger" in task.get_name()}


async def test_closing_the_blocking_one_does_so_too(report_server):
    report_server.scripts = [reads_on]
    with Client(report_server.target) as client:
        with client.report_progress() as reports:
            sending = asyncio.create_task(asyncio.to_thread(reports.send, "j", 1))
            await asyncio.to_thread(report_server.received, 0, 1)
        with pytest.raises(JobledgerError, match="closed"):
            await sending
        with pytest.raises(JobledgerError, match="closed"):
            reports.send("j", 1)
        reports.close()
    assert "jobledger-reports" not in {thread.name for thread in threading.enumerate()}


async def test_closing_the_client_ends_them_too(report_server):
    report_server.scripts = [reads_on, reads_on]
    async with AsyncClient(report_server.target) as client:
        reports = client.report_progress()
        sending = asyncio.create_task(reports.send("j", 1))
        await asyncio.to_thread(report_server.received, 0, 1)
        await client.close()
        with pytest.raises(JobledgerError, match="closed"):
            await sending
    with Client(report_server.target) as blocking:
        blocking_reports = blocking.report_progress()
        call = functools.partial(blocking_reports.send, "j", 1)
        sending = asyncio.create_task(asyncio.to_thread(call))
        await asyncio.to_thread(report_server.received, 1, 1)
        blocking.close()
        with pytest.raises(JobledgerError, match="closed"):
            await sending


async def test_the_acknowledgement_of_one_that_was_cancelled_goes_to_nobody(report_server):
    go = threading.Event()

    def holds(requests, context):
        first = next(requests)
        go.wait(20)
        yield acknowledgement(first)
        yield from acknowledges()(requests, context)

    report_server.scripts = [holds]
    async with AsyncClient(report_server.target) as client, client.report_progress() as reports:
        given_up = asyncio.create_task(reports.send("a", 1))
        await asyncio.to_thread(report_server.received, 0, 1)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        sending = asyncio.create_task(reports.send("b", 2))
        go.set()
        assert (await sending).job.id == "b"
    assert len(report_server.streams) == 1


def test_grpc_itself_does_not_repeat_a_stream(report_server):
    report_server.scripts = [aborts(AWAY) for _ in range(5)]
    with grpc.insecure_channel(report_server.target, CHANNEL_OPTIONS) as channel:
        stub = WorkerServiceStub(channel)
        call = stub.ReportProgress(iter([pb.ReportProgressRequest(job_id="j")]))
        with pytest.raises(grpc.RpcError, match="scripted"):
            next(call)
    assert len(report_server.streams) == 1
