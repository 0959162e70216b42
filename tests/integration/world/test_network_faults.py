"""What chance and faults do to the simulated network."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from jobledger_world.chance import Chance
from jobledger_world.loop import WorldLoop
from jobledger_world.network import Connection, Network
from jobledger_world.network.channel import CONNECT_SECONDS
from jobledger_world.nodes import Node
from tests.integration.world.transports import SERVICE, failure, stream, unary


class Run:
    """A run of a server `server` and a client `client`, from a seed."""

    def __init__(self, seed: int = 1) -> None:
        chance = Chance(seed)
        self.loop = WorldLoop(chance)
        self.network = Network(self.loop, chance)
        self.server, self.client = Node(self.loop, "server"), Node(self.loop, "client")
        self.served: list[bytes] = []
        self.ended: list[str] = []

    def run(self, main: Callable[[grpc.aio.Channel], Awaitable[Any]]) -> Any:
        """Run this in the client, with a channel to the server."""

        async def both() -> Any:
            await self.server.start(self._serve())
            return await self.client.start(self._call(main))

        try:
            return self.loop.run_until_complete(both())
        finally:
            self.loop.close()

    async def _call(self, main: Callable[[grpc.aio.Channel], Awaitable[Any]]) -> Any:
        return await main(self.network.channel("server:1"))

    async def _serve(self) -> None:
        async def take(request: bytes, context: Any) -> bytes:
            self.served.append(request)
            return request

        async def echo(requests: Any, context: Any) -> None:
            try:
                async for request in requests:
                    await context.write(request)
            finally:
                self.ended.append("echo")

        server = self.network.new_server()
        handlers: Any = {
            "Take": grpc.unary_unary_rpc_method_handler(take),
            "CancelJob": grpc.unary_unary_rpc_method_handler(take),
            "Echo": grpc.stream_stream_rpc_method_handler(echo),
        }
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
        server.add_insecure_port("server:1")
        await server.start()

    @property
    def connection(self) -> Connection:
        [connection] = self.network.connections("server:1")
        return connection


def test_messages_keep_their_order_when_some_are_slow() -> None:
    run = Run()
    run.network.slow = 0.3

    async def main(channel: grpc.aio.Channel) -> list[int]:
        call = stream(channel, "Echo")
        for number in range(100):
            await call.write(b"%d" % number)
        await call.done_writing()
        return [int(each) async for each in call]

    assert run.run(main) == list(range(100))
    assert run.loop.time() > 3


def test_a_seed_decides_when_messages_arrive() -> None:
    def trace(seed: int) -> str:
        run = Run(seed)
        run.network.slow = 0.1

        async def main(channel: grpc.aio.Channel) -> None:
            await asyncio.gather(*(unary(channel, "Take") for _ in range(20)))

        run.run(main)
        return run.loop.hash

    assert trace(1) == trace(1) != trace(2)


def test_a_new_connection_may_be_refused() -> None:
    run = Run()
    run.network.closed["server:1"] = "refused"

    async def main(channel: grpc.aio.Channel) -> None:
        error = await failure(unary(channel, "Take"))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "Connection refused" in (error.details() or "")
        run.network.closed.clear()
        await channel.channel_ready()
        run.network.closed["server:1"] = "refused"  # which concerns no connection that is there
        assert await unary(channel, "Take", b"now") == b"now"

    run.run(main)
    assert run.served == [b"now"]


def test_a_new_connection_may_not_be_answered() -> None:
    run = Run()
    run.network.closed[run.client] = "unanswered"

    async def main(channel: grpc.aio.Channel) -> None:
        error = await failure(unary(channel, "Take"))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "timed out" in (error.details() or "")
        assert run.loop.time() == pytest.approx(CONNECT_SECONDS)

    run.run(main)
    assert run.served == []


def test_a_connection_is_asked_for_again_while_nothing_answers() -> None:
    run = Run()
    run.network.closed["server:1"] = "unanswered"

    async def main(channel: grpc.aio.Channel) -> None:
        run.loop.call_later(2, run.network.closed.clear)
        assert await unary(channel, "Take", b"late") == b"late"
        assert 3 < run.loop.time() < 3.1  # a second, and then two

    run.run(main)


def test_a_request_may_reach_the_server_twice() -> None:
    run = Run()
    run.network.duplicates = 1.0

    async def main(channel: grpc.aio.Channel) -> None:
        assert await unary(channel, "CancelJob", b"repeatable") == b"repeatable"
        assert await unary(channel, "Take", b"not") == b"not"
        await asyncio.sleep(1)

    run.run(main)
    assert sorted(run.served) == [b"not", b"repeatable", b"repeatable"]


def test_an_answer_may_be_lost_with_its_connection() -> None:
    run = Run()
    run.network.lost_answers = 1.0

    async def main(channel: grpc.aio.Channel) -> None:
        error = await failure(unary(channel, "Take"))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        run.network.lost_answers = 0.0
        await unary(channel, "Take")

    run.run(main)
    assert len(run.served) == 2


@pytest.mark.parametrize("to_server", [True, False])
def test_one_direction_may_be_blocked(*, to_server: bool) -> None:
    run = Run()

    async def main(channel: grpc.aio.Channel) -> None:
        await unary(channel, "Take")
        run.connection.block(to_server=to_server, to_client=not to_server)
        call = unary(channel, "Take")
        await asyncio.sleep(5)
        assert not call.done()
        assert len(run.served) == (1 if to_server else 2)
        run.connection.heal()
        await call

    run.run(main)
    assert len(run.served) == 2


def test_a_request_that_was_blocked_is_served_after_its_client_has_left() -> None:
    run = Run()

    async def main(channel: grpc.aio.Channel) -> None:
        await unary(channel, "Take")
        run.connection.block()
        late = await failure(unary(channel, "Take", b"late", timeout=5))
        assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        run.connection.heal()
        await asyncio.sleep(1)

    run.run(main)
    assert run.served == [b"", b"late"]


def test_a_server_serves_nothing_on_a_connection_that_it_has_closed() -> None:
    run = Run()

    async def main(channel: grpc.aio.Channel) -> None:
        await unary(channel, "Take", b"before")
        calls = [unary(channel, "Take", b"under way")]
        run.connection.lose_server("closed")
        calls.append(unary(channel, "Take", b"later"))
        for call in calls:
            assert await call.code() is grpc.StatusCode.UNAVAILABLE
        await unary(channel, "Take", b"after")

    run.run(main)
    assert run.served == [b"before", b"after"]


def test_a_client_gives_up_a_frozen_server_and_a_thawed_one_answers_again() -> None:
    run = Run()

    async def main(channel: grpc.aio.Channel) -> None:
        call = stream(channel, "Echo")
        await call.write(b"1")
        assert await call.read() == b"1"
        run.server.freeze()
        began = run.loop.time()
        assert (await failure(call.read())).code() is grpc.StatusCode.UNAVAILABLE
        # Keepalive pings every 30 s, and waits for 10.
        assert 10 <= run.loop.time() - began <= 41
        waiting = asyncio.ensure_future(unary(channel, "Take"))
        await asyncio.sleep(1)
        assert not waiting.done()
        assert not run.ended
        run.server.thaw()
        await waiting
        assert run.ended == ["echo"]

    run.run(main)


def test_a_crashed_server_is_noticed_and_refuses_connections() -> None:
    run = Run()

    async def main(channel: grpc.aio.Channel) -> None:
        call = stream(channel, "Echo")
        await call.write(b"1")
        assert await call.read() == b"1"
        run.server.kill()
        run.network.crash(run.server)
        assert (await failure(call.read())).code() is grpc.StatusCode.UNAVAILABLE
        refused = await failure(unary(channel, "Take"))
        assert "Connection refused" in str(refused.details())
        assert not run.network.connections()
        # Nothing of a dead node runs, not even at its end.
        assert not run.ended

    run.run(main)


def test_a_crashed_client_is_noticed() -> None:
    run = Run()
    other = Node(run.loop, "other")

    async def hold(read: asyncio.Event) -> None:
        call = stream(run.network.channel("server:1"), "Echo")
        await call.write(b"1")
        await call.read()
        read.set()
        await call.read()

    async def main(channel: grpc.aio.Channel) -> None:
        read = asyncio.Event()
        other.start(hold(read))
        await read.wait()
        other.kill()
        run.network.crash(other)
        await asyncio.sleep(1)
        assert run.ended == ["echo"]
        assert not run.network.connections()

    run.run(main)


def test_connecting_to_a_frozen_server_takes_too_long() -> None:
    run = Run()

    async def main(channel: grpc.aio.Channel) -> None:
        run.server.freeze()
        error = await failure(unary(channel, "Take", timeout=60))
        assert "timed out" in str(error.details())
        run.server.thaw()
        await channel.channel_ready()
        await unary(channel, "Take")
        assert len(run.network.connections()) == 1

    run.run(main)


def test_an_idle_connection_takes_no_steps() -> None:
    run = Run()

    async def main(channel: grpc.aio.Channel) -> int:
        call = stream(channel, "Echo")
        await call.write(b"1")
        await call.read()
        before = run.loop.steps
        await asyncio.sleep(7 * 24 * 3600)
        return run.loop.steps - before

    assert run.run(main) < 10
