"""A channel's retries, on gRPC and on the simulated network, which have to behave the same way."""

import asyncio
import json
from typing import Any

import grpc

from tests.integration.world.transports import (
    SERVICE,
    Transport,
    calling,
    connected,
    failure,
    on_both,
    serving,
    stream,
    through_a_line,
    unary,
)

POLICY = {
    "maxAttempts": 4,
    "initialBackoff": "0.02s",
    "maxBackoff": "0.1s",
    "backoffMultiplier": 3,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
CONFIG = {
    "methodConfig": [
        {"name": [{"service": SERVICE}], "retryPolicy": POLICY},
        {"name": [{"service": SERVICE, "method": "Once"}]},
    ]
}
RETRIES = [("grpc.service_config", json.dumps(CONFIG))]


class Failing:
    """A handler that fails, and knows how often each call has come.

    Args:
        times: How often it fails before it succeeds.
        code: The status.
        trailing: Metadata with it.
    """

    def __init__(
        self,
        times: int = 1000,
        code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE,
        trailing: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.attempts: list[str | None] = []
        self._times, self._code, self._trailing = times, code, trailing

    async def serve(self, request: bytes, context: Any) -> bytes:
        metadata: Any = dict(context.invocation_metadata())
        self.attempts.append(metadata.get("grpc-previous-rpc-attempts"))
        if len(self.attempts) > self._times:
            return request
        return await context.abort(self._code, "no", self._trailing)


def handler(behavior: Any) -> Any:
    return grpc.unary_unary_rpc_method_handler(behavior)


@on_both
async def test_a_call_is_made_again_until_it_succeeds(transport: Transport) -> None:
    failing = Failing(times=2)
    async with connected(transport, channel=RETRIES, M=handler(failing.serve)) as channel:
        assert await unary(channel, "M", b"answer") == b"answer"
    assert failing.attempts == [None, "1", "2"]


@on_both
async def test_the_last_failure_is_the_calls(transport: Transport) -> None:
    failing = Failing()
    async with connected(transport, channel=RETRIES, M=handler(failing.serve)) as channel:
        assert (await failure(unary(channel, "M"))).details() == "no"
    assert len(failing.attempts) == 4


@on_both
async def test_other_codes_and_methods_are_not_repeated(transport: Transport) -> None:
    aborted, once = Failing(code=grpc.StatusCode.ABORTED), Failing()
    behaviors = {"M": handler(aborted.serve), "Once": handler(once.serve)}
    async with connected(transport, channel=RETRIES, **behaviors) as channel:
        for method in behaviors:
            await failure(unary(channel, method))
    assert aborted.attempts == once.attempts == [None]


@on_both
async def test_the_deadline_is_of_all_attempts_together(transport: Transport) -> None:
    failing = Failing(trailing=(("grpc-retry-pushback-ms", "300"),))
    async with connected(transport, channel=RETRIES, M=handler(failing.serve)) as channel:
        error = await failure(unary(channel, "M", timeout=0.5))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert failing.attempts == [None, "1"]


@on_both
async def test_a_server_may_ask_not_to_come_again(transport: Transport) -> None:
    failing = Failing(trailing=(("grpc-retry-pushback-ms", "-1"),))
    async with connected(transport, channel=RETRIES, M=handler(failing.serve)) as channel:
        await failure(unary(channel, "M"))
    assert failing.attempts == [None]


@on_both
async def test_a_stream_is_made_again_with_what_was_written_until_an_answer_has_come(
    transport: Transport,
) -> None:
    read: list[bytes] = []

    async def handle(requests: Any, context: Any) -> None:
        read.append(await context.read())
        if len(read) == 3:
            await context.write(b"answer")
        await context.abort(grpc.StatusCode.UNAVAILABLE, "no")

    async with connected(transport, channel=RETRIES, M=handle) as channel:
        call = stream(channel, "M")
        await call.write(b"request")
        assert await call.read() == b"answer"
        await failure(call.read())
    assert read == [b"request"] * 3


@on_both
async def test_a_call_whose_answer_is_lost_is_made_again(transport: Transport) -> None:
    served = 0

    async def handle(request: bytes, context: Any) -> bytes:
        nonlocal served
        served += 1
        if served == 1:
            line.reset()
        return request

    behaviors = {"M": handler(handle), "Once": handler(handle)}
    async with through_a_line(transport, channel=RETRIES, **behaviors) as (line, channel):
        assert await unary(channel, "M", b"answer") == b"answer"
        assert served == 2
        served = 0
        assert (await failure(unary(channel, "Once"))).code() is grpc.StatusCode.UNAVAILABLE
        assert served == 1


@on_both
async def test_calls_wait_for_a_server_that_comes_back_in_time(transport: Transport) -> None:
    failing = Failing(times=0)
    soon = [("grpc.initial_reconnect_backoff_ms", 20), ("grpc.max_reconnect_backoff_ms", 20)]
    async with serving(transport) as (_, target):
        pass
    async with calling(transport, target, [*RETRIES, *soon]) as channel:
        calls = [asyncio.ensure_future(unary(channel, "M", b"answer")) for _ in range(3)]
        await asyncio.wait(calls, timeout=0.01)
        async with serving(transport, listen=target, M=handler(failing.serve)):
            assert await asyncio.gather(*calls) == [b"answer"] * 3
