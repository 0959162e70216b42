"""Heartbeats by the client's own clock, with both clients."""

import asyncio
import contextvars
import threading

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo

from jobledger import AccessDenied, AsyncClient, Client, JobledgerError, JobNotFound
from tests.e2e.client.both_clients import BOTH

OFTEN = 0.05


async def test_a_quiet_watch_yields_heartbeats_with_the_job_and_how_long_the_silence_is(
    fault_server, first_of
):
    fault_server.says(fault_server.message(4), then=fault_server.falls_silent)
    first, *beats = await first_of(4, "watch", "j", heartbeats=OFTEN)
    assert (first.job.version, first.heartbeat, first.silence) == (4, False, 0)
    assert [(b.job.version, b.heartbeat, b.transitions) for b in beats] == [(4, True, ())] * 3
    assert 0 < beats[0].silence < beats[1].silence < beats[2].silence


@pytest.mark.parametrize("first_of", BOTH, indirect=True)
async def test_heartbeats_come_also_while_the_connection_is_opened_again(fault_server, first_of):
    """Its next stream never begins, so nothing but heartbeats can come."""
    aborts = fault_server.aborts(grpc.StatusCode.UNAVAILABLE)
    fault_server.says(fault_server.message(1), then=aborts)
    fault_server.says(then=fault_server.falls_silent)
    _, *beats = await first_of(3, "watch", "j", heartbeats=OFTEN)
    assert [beat.heartbeat for beat in beats] == [True, True]


async def test_the_services_own_heartbeats_do_not_count_as_changes_and_end_the_silence(
    fault_server, first_of
):
    def beats(request, context):
        gone = threading.Event()
        context.add_callback(gone.set)
        while not gone.wait(OFTEN / 5):
            yield fault_server.news("2", heartbeat=True)

    fault_server.says(fault_server.news("1", synced=True), then=beats)
    first, *beats = await first_of(10, "watch_jobs", heartbeats=OFTEN * 2)
    assert (first.synced, first.heartbeat, first.resume_token) == (True, False, "1")
    assert {(beat.job, beat.heartbeat, beat.resume_token) for beat in beats} == {(None, True, "2")}
    assert all(beat.silence > 0 for beat in beats)  # none is the service's
    assert any(beat.silence < OFTEN * 2 for beat in beats)


@pytest.mark.parametrize("first_of", BOTH, indirect=True)
async def test_a_watch_with_heartbeats_ends_with_its_job_or_its_error(fault_server, first_of):
    fault_server.says(fault_server.message(1), fault_server.message(2, "COMPLETED"))
    changes = await first_of(9, "watch", "j", heartbeats=60)
    assert [change.job.version for change in changes] == [1, 2]
    gone = fault_server.rich(grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND")
    fault_server.says(fault_server.message(1), then=fault_server.refuses(gone))
    with pytest.raises(JobNotFound):
        await first_of(9, "watch", "j", heartbeats=60)


async def test_closing_the_client_ends_a_watch_with_heartbeats(fault_server):
    for _ in range(2):
        fault_server.says(fault_server.message(1), then=fault_server.falls_silent)
    async with AsyncClient(fault_server.target, user_id="ada") as client:
        changes = client.watch("j", heartbeats=60)
        await anext(changes)
        rest = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(JobledgerError, match="closed"):
            await rest
    blocking = Client(fault_server.target, user_id="ada")
    watch = blocking.watch("j", heartbeats=60)
    next(watch)
    closing = threading.Thread(target=blocking.close)
    closing.start()
    with pytest.raises(JobledgerError, match="closed"):
        next(watch)
    closing.join()


def test_leaving_the_loop_ends_the_stream_and_the_thread_of_a_watch_with_heartbeats(fault_server):
    fault_server.says(fault_server.message(1), then=fault_server.falls_silent)
    before = set(threading.enumerate())
    with Client(fault_server.target, user_id="ada") as client:
        for _ in client.watch("j", heartbeats=60):
            threads = set(threading.enumerate()) - before
            break
        (reader,) = [thread for thread in threads if thread.name == "jobledger-watch"]
        reader.join(10)
        assert not reader.is_alive()
        assert fault_server.ended.wait(10)


async def test_cancelling_a_task_ends_its_watch_with_heartbeats_also_between_two_streams(
    fault_server,
):
    retry = RetryInfo(retry_delay=Duration(seconds=1000))
    later = fault_server.rich(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", retry)
    fault_server.says(fault_server.message(1), then=fault_server.refuses(later))
    lost = asyncio.Event()

    async def follow(client):
        async for _ in client.watch("j", heartbeats=60, on_disconnect=lambda _: lost.set()):
            pass

    async with AsyncClient(fault_server.target, user_id="ada") as client:
        task = asyncio.create_task(follow(client))
        await lost.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize(
    ("method", "jobs", "options"),
    [("watch", "j", {"heartbeats": 60}), ("as_completed", map(str, range(1001)), {})],
)
def test_a_callback_can_exit_the_program_though_a_thread_calls_it(
    fault_server, method, jobs, options
):
    def leave(error):
        raise SystemExit(str(error))

    for _ in range(2):  # a stream for each thousand jobs
        fault_server.says(then=fault_server.aborts(grpc.StatusCode.UNAVAILABLE, "away"))
    with Client(fault_server.target, user_id="ada") as client:
        watch = getattr(client, method)(jobs, on_disconnect=leave, **options)
        with pytest.raises(SystemExit, match="away"):
            next(watch)


def test_a_token_function_has_the_context_of_the_caller_though_a_thread_calls_it(fault_server):
    token = contextvars.ContextVar("token", default="a token of nobody")
    token.set("ada")
    for _ in range(2):
        fault_server.says(then=fault_server.aborts(grpc.StatusCode.PERMISSION_DENIED))
    with (
        Client(fault_server.target, user_id="ada", token=token.get) as client,
        pytest.raises(AccessDenied),
    ):
        next(client.as_completed(map(str, range(1001))))
