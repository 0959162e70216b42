"""Watching over servers and proxies that misbehave, with both clients."""

import asyncio
import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo

from jobledger import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    InternalError,
)
from jobledger.core import reconnecting
from jobledger.v1.job_service_pb2 import WatchJobResponse
from tests.e2e.client.both_clients import BOTH
from tests.support.observed_channel import ObservedChannel


def versions(messages):
    return [message.job.version for message in messages]


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.INTERNAL,
    ],
)
@pytest.mark.parametrize("collect", BOTH, indirect=True)
async def test_a_broken_watch_resumes_after_the_last_version_seen(fault_server, collect, code):
    say, message = fault_server.says, fault_server.message
    say(message(1), message(3), then=fault_server.aborts(code))
    say(then=fault_server.aborts(code))
    say(message(3), message(4), WatchJobResponse(heartbeat=True), message(5, "COMPLETED"))
    messages = await collect(fault_server.target, "j")
    assert versions(messages) == [1, 3, 4, 5]
    assert [request.after_version for request in fault_server.requests] == [0, 3, 3]
    assert {(request.job_id, request.user_id) for request in fault_server.requests} == {
        ("j", "ada")
    }


async def test_a_stream_that_ends_with_ok_before_the_terminal_state_is_resumed(
    fault_server, collect
):
    fault_server.says(fault_server.message(1))
    fault_server.says(fault_server.message(2, "FAILED"))
    assert versions(await collect(fault_server.target, "j")) == [1, 2]


@pytest.mark.parametrize("collect", BOTH, indirect=True)
async def test_a_silent_stream_is_cancelled_and_reopened(fault_server, collect, monkeypatch):
    monkeypatch.setattr(reconnecting, "MAX_SILENCE", 0.3)
    fault_server.says(fault_server.message(1), then=fault_server.falls_silent)
    fault_server.says(fault_server.message(2, "PARTIAL"))
    async with asyncio.timeout(10):  # sooner than the server ends the silence
        assert versions(await collect(fault_server.target, "j")) == [1, 2]
    assert await asyncio.to_thread(fault_server.ended.wait, 10)


@pytest.mark.parametrize("collect", BOTH, indirect=True)
async def test_the_servers_delay_is_respected(fault_server, collect):
    retry = RetryInfo()
    retry.retry_delay.FromMilliseconds(400)
    drains = fault_server.rich(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", retry)
    fault_server.says(fault_server.message(1), then=fault_server.refuses(drains))
    fault_server.says(fault_server.message(2, "COMPLETED"))
    start = time.monotonic()
    assert versions(await collect(fault_server.target, "j")) == [1, 2]
    assert time.monotonic() - start >= 0.4


def test_a_slow_caller_does_not_make_its_stream_time_out(fault_server, monkeypatch):
    monkeypatch.setattr(reconnecting, "MAX_SILENCE", 0.2)
    fault_server.says(fault_server.message(1), fault_server.message(2, "COMPLETED"))
    with Client(fault_server.target, user_id="ada") as client:
        for _ in client.watch("j"):
            time.sleep(0.5)  # The time is what is tested.
    assert len(fault_server.requests) == 1


async def test_a_refusal_is_raised_also_in_the_middle(fault_server, collect):
    status = fault_server.rich(grpc.StatusCode.INTERNAL, "INTERNAL")
    fault_server.says(fault_server.message(1), then=fault_server.refuses(status))
    with pytest.raises(InternalError):
        await collect(fault_server.target, "j")
    assert len(fault_server.requests) == 1


def test_leaving_the_loop_cancels_the_stream(fault_server):
    fault_server.says(fault_server.message(1), then=fault_server.falls_silent)
    with grpc.insecure_channel(fault_server.target) as channel:
        client = Client(channel=ObservedChannel(channel), user_id="ada")
        for _ in client.watch("j"):
            break
        assert fault_server.ended.wait(10)


async def test_leaving_the_async_loop_cancels_the_stream(fault_server):
    fault_server.says(fault_server.message(1), then=fault_server.falls_silent)
    async with grpc.aio.insecure_channel(fault_server.target) as channel:
        client = AsyncClient(channel=ObservedChannel(channel), user_id="ada")
        async for _ in client.watch("j"):
            break
        # The loop closes an abandoned generator in a task of its own.
        assert await asyncio.to_thread(fault_server.ended.wait, 10)


async def test_cancelling_the_task_ends_the_watch_and_its_stream(fault_server):
    fault_server.says(fault_server.message(1), then=fault_server.falls_silent)
    async with AsyncClient(fault_server.target, user_id="ada") as client:
        first = asyncio.Event()

        async def follow():
            async for _ in client.watch("j"):
                first.set()

        task = asyncio.create_task(follow())
        await first.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(fault_server.ended.wait, 10)
    assert len(fault_server.requests) == 1


def breaks_then_is_quiet(fault_server):
    """The second stream says nothing new, so the iterating caller stays within the watch."""
    aborts = fault_server.aborts(grpc.StatusCode.UNAVAILABLE)
    fault_server.says(fault_server.message(1), then=aborts)
    fault_server.says(fault_server.message(1), then=fault_server.falls_silent)


def test_closing_a_watch_ends_the_iteration_of_another_thread(fault_server):
    breaks_then_is_quiet(fault_server)
    quiet = threading.Event()
    with Client(fault_server.target, user_id="ada") as client, ThreadPoolExecutor(1) as threads:
        changes = client.watch("j", on_reconnect=quiet.set)
        seen = threads.submit(list, changes)
        assert quiet.wait(10)
        changes.close()
        assert versions(seen.result(10)) == [1]
        assert fault_server.ended.wait(10)


async def test_closing_an_async_watch_ends_the_iteration_of_another_task(fault_server):
    breaks_then_is_quiet(fault_server)
    quiet = asyncio.Event()
    async with AsyncClient(fault_server.target, user_id="ada") as client:
        changes = client.watch("j", on_reconnect=quiet.set)

        async def read():
            return [change async for change in changes]

        seen = asyncio.create_task(read())
        await quiet.wait()
        await changes.aclose()
        assert versions(await seen) == [1]
        assert await asyncio.to_thread(fault_server.ended.wait, 10)


async def test_a_watch_may_be_closed_when_it_is_disconnected(fault_server):
    for _ in range(2):
        aborts = fault_server.aborts(grpc.StatusCode.UNAVAILABLE)
        fault_server.says(fault_server.message(1), then=aborts)
    with Client(fault_server.target, user_id="ada") as client:
        changes = client.watch("j", on_disconnect=lambda _: changes.close())
        assert versions(changes) == [1]
    async with AsyncClient(fault_server.target, user_id="ada") as client:
        watch = client.watch("j", on_disconnect=lambda _: watch.aclose())
        assert versions([change async for change in watch]) == [1]
    assert len(fault_server.requests) == 2


def test_a_watch_leaves_no_thread_behind(fault_server):
    fault_server.says(fault_server.message(1, "COMPLETED"))
    with Client(fault_server.target, user_id="ada") as client:
        news = client.watch("j")
        next(news)
        watchdogs = [t for t in threading.enumerate() if t.name == "jobledger-watchdog"]
        with contextlib.closing(news):
            assert len(watchdogs) == 1
        watchdogs[0].join(10)
        assert not watchdogs[0].is_alive()


def test_a_hundred_watches_of_a_client_share_one_thread_of_its_own(fault_server):
    """Each blocks one thread of the caller. The messages are the last, so that no stream breaks."""
    for _ in range(101):
        fault_server.says(fault_server.message(1, "COMPLETED"))
    with Client(fault_server.target, user_id="ada") as client, contextlib.ExitStack() as stack:
        with client.watch("j") as first:  # gRPC's own threads start
            next(first)
        before = set(threading.enumerate())
        watches = [stack.enter_context(client.watch("j")) for _ in range(100)]
        for each in watches:
            next(each)
        started = [t.name for t in threading.enumerate() if t not in before]
        assert started.count("jobledger-watchdog") <= 1
        assert len([name for name in started if name.startswith("jobledger")]) <= 1


async def test_wait_times_out_even_while_updates_arrive(fault_server):
    def chatters(request, context):
        gone = threading.Event()
        context.add_callback(gone.set)
        version = 1
        while not gone.wait(0.05):
            version += 1
            yield fault_server.message(version)

    fault_server.says(then=chatters)
    async with AsyncClient(fault_server.target, user_id="ada") as client:
        with pytest.raises(DeadlineExceeded, match=r"within 0\.4 s"):
            await client.wait("j", timeout=0.4)
