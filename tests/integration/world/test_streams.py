"""Streams, on gRPC and on the simulated network, which have to behave in the same way."""

import asyncio
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from jobledger_world.network.stream import Side, Signal
from tests.integration.world.transports import (
    Transport,
    connected,
    echo,
    failure,
    on_both,
    stream,
    through_a_line,
    unary,
    until,
)

MANY = 1024
EIGHT_KILOBYTES = bytes(8 * 1024)


@on_both
async def test_messages_of_any_size_arrive(transport: Transport) -> None:
    window = 65_535  # HTTP/2's
    sizes = [window // 2 - 100, window - 100, window // 2 + 100, 1, 2 * window, 100, 3 * window, 7]

    async with connected(transport, Echo=echo) as channel:
        call = stream(channel, "Echo")
        for size in sizes:
            await call.write(bytes(size))
            assert len(await call.read()) == size
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF


@on_both
async def test_a_server_may_write_after_the_client_has_closed_its_side(
    transport: Transport,
) -> None:
    async def handle(requests: Any, context: Any) -> None:
        assert await context.read() is grpc.aio.EOF
        assert await context.read() is grpc.aio.EOF
        await context.write(b"answer")

    async with connected(transport, M=handle) as channel:
        call = stream(channel, "M")
        await call.done_writing()
        with pytest.raises(asyncio.InvalidStateError):
            await call.write(b"")
        assert await call.read() == b"answer"
        assert await call.read() is grpc.aio.EOF
        assert await call.read() is grpc.aio.EOF


@on_both
async def test_nothing_is_written_after_the_end(transport: Transport) -> None:
    ended, seen = asyncio.Event(), []

    async def handle(requests: Any, context: Any) -> None:
        async def write_late() -> None:
            await ended.wait()
            with pytest.raises(grpc.aio.UsageError) as raised:
                await context.write(b"")
            seen.append(raised.value)

        tasks.append(asyncio.create_task(write_late()))

    tasks: list[asyncio.Task[None]] = []
    async with connected(transport, M=handle) as channel:
        call = stream(channel, "M")
        assert await call.read() is grpc.aio.EOF
        with pytest.raises(asyncio.InvalidStateError):
            await call.write(b"")
        await call.done_writing()
        ended.set()
        await tasks[0]
    assert len(seen) == 1


@on_both
async def test_messages_before_an_error_are_read_before_it(transport: Transport) -> None:
    aborting = asyncio.Event()

    async def handle(requests: Any, context: Any) -> None:
        for number in range(3):
            await context.write(b"%d" % number)
        context.add_done_callback(lambda _: aborting.set())
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the server stops")

    async with connected(transport, M=handle) as channel:
        call = stream(channel, "M")
        await aborting.wait()
        await all_has_arrived(channel)
        assert [await call.read() for _ in range(3)] == [b"0", b"1", b"2"]
        for _ in range(2):
            assert (await failure(call.read())).details() == "the server stops"


@on_both
async def test_a_client_that_writes_waits_for_a_server_that_does_not_read(
    transport: Transport,
) -> None:
    reading, read = asyncio.Event(), 0

    async def handle(requests: Any, context: Any) -> None:
        nonlocal read
        await reading.wait()
        async for _ in requests:
            read += 1

    async with connected(transport, M=handle) as channel:
        call = stream(channel, "M")
        writing = start_writing(call.write)
        assert await stalls(writing) < MANY
        reading.set()
        assert await writing == MANY
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
    assert read == MANY


@on_both
async def test_a_server_that_writes_waits_for_a_client_that_does_not_read(
    transport: Transport,
) -> None:
    writing: list[asyncio.Task[int]] = []
    begun = asyncio.Event()

    async def handle(requests: Any, context: Any) -> None:
        writing.append(start_writing(context.write))
        begun.set()
        await writing[0]

    async with connected(transport, M=handle) as channel:
        call = stream(channel, "M")
        await begun.wait()
        assert await stalls(writing[0]) < MANY
        assert len([each async for each in call]) == MANY
        assert await writing[0] == MANY


def test_what_finds_no_room_arrives_when_the_other_side_has_read() -> None:
    pipe: Any = SimpleNamespace(send=lambda arrive, what: arrive(what))
    one, other = (Side(pipe, 1024, 10**6, Signal()) for _ in range(2))
    one.peer, other.peer = other, one
    for _ in range(2):
        one.send(bytes(600))
    assert (len(other.incoming), one.full) == (1, True)
    other.read()
    assert (len(other.incoming), one.full) == (1, False)


async def all_has_arrived(channel: grpc.aio.Channel) -> None:
    """Return when the client has received what was sent to it: a connection keeps the order."""
    await failure(unary(channel, "Unknown"))


def start_writing(write: Any) -> asyncio.Task[int]:
    """Start to write many messages. The task's name is the number of those that are written."""
    return asyncio.create_task(write_many(write), name="0")


async def write_many(write: Any) -> int:
    task: Any = asyncio.current_task()
    for number in range(MANY):
        await write(EIGHT_KILOBYTES)
        task.set_name(f"{number + 1}")
    return MANY


async def stalls(writing: asyncio.Task[int]) -> int:
    """Return how many messages a task has written once it writes no more."""
    before = -1
    while (now := int(writing.get_name())) != before:
        before = now
        await asyncio.sleep(0.2)
    return now


@on_both
async def test_a_handler_that_reads_sees_the_end_and_is_cancelled_after_it(
    transport: Transport,
) -> None:
    seen: list[object] = []
    begun, ended = asyncio.Event(), asyncio.Event()

    async def handle(requests: Any, context: Any) -> None:
        await context.write(b"")
        begun.set()  # the client may have the message before the write returns
        try:
            seen.append(await context.read())
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        finally:
            ended.set()

    async with connected(transport, M=handle) as channel:
        call = stream(channel, "M")
        await call.read()
        await begun.wait()
        reading = asyncio.create_task(call.read())
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        with pytest.raises(asyncio.CancelledError):
            await call.read()
        with pytest.raises(asyncio.InvalidStateError):
            await call.write(b"")
        await ended.wait()
    assert seen == [grpc.aio.EOF, "cancelled"]


@on_both
async def test_a_write_that_waits_fails_when_the_client_has_left(transport: Transport) -> None:
    writing: list[asyncio.Task[int]] = []
    begun = asyncio.Event()

    async def handle(requests: Any, context: Any) -> None:
        writing.append(start_writing(context.write))
        begun.set()
        await asyncio.Event().wait()

    async with connected(transport, M=handle) as channel:
        call = stream(channel, "M")
        await begun.wait()
        await stalls(writing[0])
        call.cancel()
        with pytest.raises(grpc.aio.InternalError):
            await writing[0]


@on_both
async def test_what_was_not_read_is_lost_with_the_connection(transport: Transport) -> None:
    written, cancelled = asyncio.Event(), asyncio.Event()

    async def handle(requests: Any, context: Any) -> None:
        for number in range(3):
            await context.write(b"%d" % number)
        written.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with through_a_line(transport, M=handle) as (line, channel):
        call = stream(channel, "M")
        assert await call.read() == b"0"
        await written.wait()
        await all_has_arrived(channel)
        line.reset()
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
        assert (await failure(call.read())).code() is grpc.StatusCode.UNAVAILABLE
        await cancelled.wait()


@on_both
async def test_a_stream_that_has_ended_is_read_after_the_connection_is_lost(
    transport: Transport,
) -> None:
    ended = asyncio.Event()

    async def handle(requests: Any, context: Any) -> None:
        context.add_done_callback(lambda _: ended.set())
        for number in range(3):
            await context.write(b"%d" % number)

    async with through_a_line(transport, M=handle) as (line, channel):
        call = stream(channel, "M")
        await ended.wait()
        await all_has_arrived(channel)
        line.reset()
        await until(channel, grpc.ChannelConnectivity.IDLE)
        assert [each async for each in call] == [b"0", b"1", b"2"]


@on_both
async def test_what_is_sent_while_the_network_is_blocked_comes_after_it(
    transport: Transport,
) -> None:
    async with through_a_line(transport, Echo=echo) as (line, channel):
        call = stream(channel, "Echo")
        await call.write(b"1")
        assert await call.read() == b"1"
        line.block()
        for number in range(2, 5):
            await call.write(b"%d" % number)
        reading = asyncio.create_task(call.read())
        done, _ = await asyncio.wait([reading], timeout=0.2)
        assert not done
        line.heal()
        assert [await reading, await call.read(), await call.read()] == [b"2", b"3", b"4"]
