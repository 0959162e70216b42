"""Output, as both clients read it: from servers that misbehave, and from the real one."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from jobledger import (
    AccessDenied,
    AsyncClient,
    Client,
    Job,
    JobNotFound,
    JobStatus,
    JobTerminal,
    LeaseLost,
    OutputGap,
    OutputPiece,
    Unavailable,
)
from jobledger.v1.job_service_pb2 import WatchOutputResponse
from tests.e2e.client.both_clients import BOTH, kind_of
from tests.e2e.client.conftest import Flaky
from tests.support.fault_server import FaultServer
from tests.support.server_process import ServerProcess

Collect = Callable[..., Any]


@pytest.fixture
def read(request: pytest.FixtureRequest) -> Collect:
    """Watch a stream of output to its end with either client; return the pieces."""

    async def read(target: str, job: str | Job, **options: Any) -> list[OutputPiece]:
        if kind_of(request) == "async":
            async with AsyncClient(target, user_id="ada") as client:
                return [piece async for piece in client.output(job, **options)]

        def read_blocking() -> list[OutputPiece]:
            with Client(target, user_id="ada") as client:
                return list(client.output(job, **options))

        return await asyncio.to_thread(read_blocking)

    return read


@pytest.fixture
def job(ada: Client) -> Job:
    """Return a job that was started: its attempt is 1."""
    job = ada.create_job("render")
    return ada.start_job(job)


def message(data: bytes, offset: int, **fields: Any) -> WatchOutputResponse:
    return WatchOutputResponse(
        data=data, offset=offset, next_offset=offset + len(data), attempt=1, **fields
    )


def closed(offset: int) -> WatchOutputResponse:
    return WatchOutputResponse(offset=offset, next_offset=offset, up_to_date=True, closed=True)


def whole(pieces: list[OutputPiece]) -> bytes:
    return b"".join(piece.data for piece in pieces)


# --- breaks ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN],
)
@pytest.mark.parametrize("read", BOTH, indirect=True)
async def test_a_broken_watch_resumes_after_the_last_byte(
    fault_server: FaultServer, read: Collect, code: grpc.StatusCode
) -> None:
    fault_server.says(message(b"ab", 7), message(b"c", 9), then=fault_server.aborts(code))
    fault_server.says(then=fault_server.aborts(code))
    fault_server.says(message(b"de", 10), then=fault_server.moves())
    fault_server.says(closed(12))
    pieces = await read(fault_server.target, "j", stream="log", last_bytes=5)
    assert whole(pieces) == b"abcde"
    assert pieces[-1].closed
    first, *later = fault_server.requests
    assert (first.stream, first.WhichOneof("from"), first.last_bytes) == ("log", "last_bytes", 5)
    assert [each.after_offset for each in later] == [10, 10, 12]
    assert {each.stream for each in fault_server.requests} == {"log"}


async def test_a_caller_learns_of_breaks_and_gets_heartbeats_meanwhile(
    fault_server: FaultServer,
) -> None:
    fault_server.says(message(b"a", 0), then=fault_server.aborts(grpc.StatusCode.UNAVAILABLE))
    fault_server.says(message(b"b", 1), then=fault_server.falls_silent)
    broken: list[object] = []
    async with (
        AsyncClient(fault_server.target, user_id="ada") as client,
        client.output(
            "j",
            heartbeats=0.05,
            on_disconnect=broken.append,
            on_reconnect=lambda: broken.append("on"),
        ) as pieces,
    ):
        found = []
        async for piece in pieces:
            found.append(piece)
            if piece.heartbeat and whole(found) == b"ab":
                break
    assert isinstance(broken[0], Unavailable)
    assert broken[1:] == ["on"]
    assert (found[-1].next_offset, found[-1].silence > 0) == (2, True)


@pytest.mark.parametrize("method", ["output", "read_output"])
def test_either_a_place_or_a_distance_from_the_end_is_given(method: str) -> None:
    name = "after" if method == "output" else "offset"
    with Client("127.0.0.1:1", user_id="ada") as client:
        for wrong in ({name: 3, "last_bytes": 4}, {name: -1}, {"last_bytes": -1}):
            with pytest.raises(ValueError, match=f"{name}|last_bytes"):
                getattr(client, method)("j", **wrong)
        with pytest.raises(TypeError, match=name):
            getattr(client, method)("j", **{name: 1.5})


# --- a real server ---------------------------------------------------------------------------


@pytest.mark.parametrize("read", BOTH, indirect=True)
async def test_a_watch_yields_all_that_is_written_until_the_job_ends(
    server: ServerProcess, ada: Client, job: Job, read: Collect
) -> None:
    ada.append_output(job, 1, "stored ", number=1)
    reading = asyncio.create_task(read(server.target, job))
    for number in range(2, 12):
        await asyncio.to_thread(ada.append_output, job, 1, f"{number} ", number=number)
    await asyncio.to_thread(ada.mark_completed, job, attempt=1)
    async with asyncio.timeout(30):
        pieces = await reading
    assert whole(pieces) == b"stored 2 3 4 5 6 7 8 9 10 11 "
    assert (pieces[-1].closed, pieces[-1].data) == (True, b"")
    assert any(piece.up_to_date for piece in pieces[:-1])
    assert ada.get_job(job).status is JobStatus.COMPLETED


async def test_a_watch_goes_on_when_its_server_is_killed(own_server: ServerProcess) -> None:
    async with AsyncClient(own_server.target, user_id="ada") as client:
        job = await client.create_job("render")
        job = await client.start_job(job)
        offset = await client.append_output(job, 1, "before, ", number=1)
        async with asyncio.timeout(60), client.output(job) as pieces:
            assert (await anext(pieces)).text == "before, "
            await asyncio.to_thread(own_server.restart)
            after = await client.append_output(job, 1, "after", number=2, timeout=30)
            assert after == offset + 5
            assert (await anext(pieces)).text == "after"
            await client.mark_completed(job, attempt=1)
            assert [piece.closed async for piece in pieces] == [True]


def test_a_place_that_was_kept_is_where_another_watch_goes_on(ada: Client, job: Job) -> None:
    ada.append_output(job, 1, "0123456789", number=1)
    with ada.output(job, after=4) as pieces:
        assert next(pieces).data == b"456789"
    with ada.output(job, last_bytes=3) as pieces:
        assert next(pieces).data == b"789"


def test_output_is_read_piece_by_piece(ada: Client, job: Job) -> None:
    ada.append_output(job, 1, "0123456789", stream="log", content_type="text/x-log", number=1)
    first = ada.read_output(job, stream="log", max_bytes=4)
    assert (first.data, first.attempt, first.up_to_date) == (b"0123", 1, False)
    rest = ada.read_output(job, stream="log", offset=first.next_offset)
    assert (rest.data, rest.up_to_date, rest.closed) == (b"456789", True, False)
    assert ada.read_output(job, stream="log", last_bytes=2).text == "89"
    ada.mark_completed(job, attempt=1)
    assert ada.read_output(job, stream="log", offset=10).closed
    assert ada.get_job(job).output_streams == {"log": "text/x-log"}


def test_what_cannot_be_read_or_written_is_the_error_that_says_why(ada: Client, job: Job) -> None:
    with Client(ada.target, user_id="bob") as bob:
        for call in (lambda: bob.read_output(job), lambda: next(bob.output(job))):
            with pytest.raises(JobNotFound):
                call()
    with pytest.raises(LeaseLost):
        ada.append_output(job, 2, "x")
    with pytest.raises(OutputGap) as gap:
        ada.append_output(job, 1, "x", number=3)
    assert gap.value.number == 1
    ada.mark_completed(job, attempt=1)
    with pytest.raises(JobTerminal):
        ada.append_output(job, 1, "x")


def test_a_watch_token_reads_output_if_it_was_made_for_that(ada: Client, job: Job) -> None:
    ada.append_output(job, 1, "x")
    tokens = [ada.create_watch_token(job, output=output).token for output in (True, False)]
    may, may_not = (Client(ada.target, user_id="ada", token=token) for token in tokens)
    with may, may_not:
        assert may.read_output(job).text == "x"
        assert next(may.output(job)).text == "x"
        for call in (may_not.read_output, lambda job: next(may_not.output(job))):
            with pytest.raises(AccessDenied):
                call(job)


# --- repetition ------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "requests"), [(1, 3), (0, 1)])
def test_only_an_append_with_a_number_is_repeated(flaky: Flaky, number: int, requests: int) -> None:
    flaky.refusals = 2
    with Client(flaky.target, user_id="ada") as client:
        if number:
            client.append_output("j", 1, "x", number=number)
        else:
            with pytest.raises(Unavailable):
                client.append_output("j", 1, "x")
    assert len(flaky.requests) == requests
    assert len(set(flaky.requests)) == 1
