"""Connections, on gRPC and on the simulated network, which have to behave in the same way."""

import asyncio
from typing import Any

import grpc
import pytest
from grpc import ChannelConnectivity as State

from tests.integration.world.transports import (
    Transport,
    calling,
    connected,
    failure,
    on_both,
    serving,
    stream,
    through_a_line,
    unary,
    until,
)

SOON = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 100)]
KEEPALIVE = [
    ("grpc.keepalive_time_ms", 200),
    ("grpc.keepalive_timeout_ms", 200),
    ("grpc.http2.ping_timeout_ms", 200),
]


def peers() -> Any:
    """Return a handler that answers with the connection that its call came on."""

    async def handle(request: bytes, context: Any) -> bytes:
        return str(context.peer()).encode()

    return grpc.unary_unary_rpc_method_handler(handle)


class Holding:
    """A handler of streams that says when it begins and ends, and goes on until `go` is set."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.ended = asyncio.Event()
        self.cancelled = False

    async def serve(self, requests: Any, context: Any) -> None:
        try:
            await context.write(b"begun")  # the client may have it before this returns
            await self.go.wait()
            await context.write(b"done")
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        finally:
            self.ended.set()


async def begun(channel: grpc.aio.Channel, **options: Any) -> Any:
    """Call Hold, and return the call once it has begun."""
    call = stream(channel, "Hold", **options)
    assert await call.read() == b"begun"
    return call


@on_both
async def test_a_channel_connects_at_its_first_call_and_again_after_a_loss(
    transport: Transport,
) -> None:
    async with through_a_line(transport, Peer=peers()) as (line, channel):
        assert channel.get_state() is State.IDLE
        first = await unary(channel, "Peer")
        assert channel.get_state() is State.READY
        assert await unary(channel, "Peer") == first
        line.reset()
        await until(channel, State.IDLE)
        assert await unary(channel, "Peer") != first


@on_both
async def test_calls_fail_while_nobody_listens_and_the_channel_tries_by_itself(
    transport: Transport,
) -> None:
    async with serving(transport) as (_, target):
        pass
    async with calling(transport, target, SOON) as channel:
        for _ in range(2):
            error = await failure(unary(channel, "Peer"))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert str(error.details()).startswith("failed to connect to all addresses; last error")
            assert channel.get_state() is State.TRANSIENT_FAILURE
        with pytest.raises(grpc.aio.AioRpcError):
            await stream(channel, "Peer").write(b"")
        async with serving(transport, listen=target, Peer=peers()):
            await channel.channel_ready()
            assert await unary(channel, "Peer")


@on_both
async def test_no_two_servers_listen_on_one_address(transport: Transport) -> None:
    async with serving(transport) as (_, target):
        with pytest.raises(RuntimeError):
            async with serving(transport, listen=target):
                pass


@on_both
async def test_a_server_that_stops_ends_running_calls_and_takes_no_new_ones(
    transport: Transport,
) -> None:
    hold = Holding()
    async with (
        serving(transport, Hold=hold.serve, Peer=peers()) as (server, target),
        calling(transport, target) as channel,
    ):
        call = await begun(channel)
        stopping = asyncio.create_task(server.stop(30))
        await until(channel, State.IDLE)
        error = await failure(unary(channel, "Peer"))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert not stopping.done()
        hold.go.set()
        assert await call.read() == b"done"
        assert await call.read() is grpc.aio.EOF
        await stopping
        assert not await server.wait_for_termination()
    assert not hold.cancelled


@on_both
async def test_a_server_cancels_what_still_runs_at_the_end_of_its_grace(
    transport: Transport,
) -> None:
    for grace in (0.1, None):
        hold = Holding()
        async with (
            serving(transport, Hold=hold.serve) as (server, target),
            calling(transport, target) as channel,
        ):
            call = await begun(channel)
            await server.stop(grace)
            error = await failure(call.read())
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            await hold.ended.wait()
        assert hold.cancelled


@on_both
async def test_a_server_has_not_stopped_before_it_has_cancelled_every_handler(
    transport: Transport,
) -> None:
    """So a handler that goes on just then finds its call cancelled, not the server stopped."""
    go, ended = asyncio.Event(), asyncio.Event()
    met: list[Exception] = []

    async def write_at_the_end(requests: Any, context: Any) -> None:
        try:
            await context.write(b"begun")
            await go.wait()
            await context.write(b"late")
        except grpc.aio.UsageError as error:
            met.append(error)
        finally:
            ended.set()

    loop = asyncio.get_running_loop()
    async with (
        serving(transport, Late=write_at_the_end) as (server, target),
        calling(transport, target) as channel,
    ):
        call = stream(channel, "Late")
        assert await call.read() == b"begun"
        end = loop.time() + 0.1
        stopping = asyncio.create_task(server.stop(0.1))
        await asyncio.sleep(0)
        loop.call_at(end, go.set)
        await stopping
        await ended.wait()
    assert not met


@on_both
async def test_a_call_that_meets_a_stopping_server_is_cancelled_or_unavailable(
    transport: Transport,
) -> None:
    # Its client cannot know whether it was begun.
    hold = Holding()
    async with (
        serving(transport, Hold=hold.serve, Peer=peers()) as (server, target),
        calling(transport, target) as channel,
    ):
        _call = await begun(channel)  # kept, or it would end
        meeting = unary(channel, "Peer")
        await server.stop(0.1)
        codes = (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
        if (code := await meeting.code()) is not grpc.StatusCode.OK:
            assert code in codes


@on_both
async def test_a_channel_that_closes_cancels_its_calls(transport: Transport) -> None:
    hold = Holding()
    async with serving(transport, Hold=hold.serve, Peer=peers()) as (_, target):
        channel = transport.channel(target, ())
        call = await begun(channel)
        reading = asyncio.create_task(call.read())
        await asyncio.sleep(0)
        await channel.close()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert channel.get_state() is State.SHUTDOWN
        for begin in (unary, stream):
            with pytest.raises(grpc.aio.UsageError):
                begin(channel, "Peer")
        await channel.close()
        await hold.ended.wait()
    assert hold.cancelled


@on_both
async def test_calls_beyond_those_of_a_connection_wait_for_one_to_end(
    transport: Transport,
) -> None:
    # See _options in server.py of why both.
    limits = [("grpc.max_concurrent_streams", 2), ("grpc.http2.max_deallocating_streams", 2)]
    hold = Holding()
    async with connected(transport, options=limits, Hold=hold.serve, Peer=peers()) as channel:
        holding = [await begun(channel) for _ in range(2)]
        late = await failure(unary(channel, "Peer", timeout=0.2))
        assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        waiting = asyncio.ensure_future(unary(channel, "Peer"))
        await asyncio.sleep(0)
        hold.go.set()
        assert [await each.read() for each in holding] == [b"done"] * 2
        assert [await each.read() for each in holding] == [grpc.aio.EOF] * 2
        assert await waiting


@on_both
async def test_a_connection_takes_no_calls_beyond_its_age(transport: Transport) -> None:
    hold = Holding()
    age = [("grpc.max_connection_age_ms", 300), ("grpc.max_connection_age_grace_ms", 600)]
    async with connected(transport, options=age, Hold=hold.serve, Peer=peers()) as channel:
        call = await begun(channel)
        first = await unary(channel, "Peer")
        await until(channel, State.IDLE)
        assert not call.done()
        assert await unary(channel, "Peer") != first
        # It does not end within its grace.
        assert (await failure(call.read())).code() is grpc.StatusCode.UNAVAILABLE
        await hold.ended.wait()
    assert hold.cancelled


@on_both
async def test_a_connection_without_calls_is_closed(transport: Transport) -> None:
    idle = [("grpc.max_connection_idle_ms", 300)]
    async with connected(transport, options=idle, Peer=peers()) as channel:
        first = await unary(channel, "Peer")
        await until(channel, State.IDLE)
        assert await unary(channel, "Peer") != first


@on_both
async def test_a_client_gives_up_a_silent_connection(transport: Transport) -> None:
    hold = Holding()
    async with through_a_line(transport, channel=KEEPALIVE, Hold=hold.serve) as (line, channel):
        call = await begun(channel)
        line.block()
        assert (await failure(call.read())).code() is grpc.StatusCode.UNAVAILABLE
        assert not hold.ended.is_set()
        # What the client has sent last comes now: that it is gone.
        line.heal()
        await hold.ended.wait()
    assert hold.cancelled


@on_both
async def test_a_server_gives_up_a_silent_connection(transport: Transport) -> None:
    hold = Holding()
    async with through_a_line(transport, options=KEEPALIVE, Hold=hold.serve) as (line, channel):
        call = await begun(channel)
        line.block()
        await hold.ended.wait()
        assert hold.cancelled
        assert not call.done()
        line.heal()
        assert (await failure(call.read())).code() is grpc.StatusCode.UNAVAILABLE


@on_both
async def test_a_deadline_holds_on_a_server_that_hears_nothing(transport: Transport) -> None:
    hold = Holding()
    async with through_a_line(transport, Hold=hold.serve) as (line, channel):
        call = await begun(channel, timeout=0.3)
        line.block()
        await hold.ended.wait()
        assert hold.cancelled
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
