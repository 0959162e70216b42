"""Calls, on gRPC and on the simulated network, which have to behave in the same way."""

import asyncio
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from tests.integration.world.transports import (
    SERVICE,
    Transport,
    calling,
    connected,
    failure,
    on_both,
    serving,
    stream,
    unary,
)


@on_both
async def test_each_kind_of_handler_gets_its_requests_and_answers(transport: Transport) -> None:
    async def one_to_one(request: bytes, context: Any) -> bytes:
        return request + b"1"

    async def one_to_many(request: bytes, context: Any) -> None:
        await context.write(request + b"2")
        await context.write(request + b"3")

    async def many_to_one(requests: Any, context: Any) -> bytes:
        return b"".join([await context.read(), b"4"])

    async def many_to_many(requests: Any, context: Any) -> Any:
        async for request in requests:
            yield request + b"5"

    async with connected(
        transport,
        OneToOne=grpc.unary_unary_rpc_method_handler(one_to_one),
        OneToMany=grpc.unary_stream_rpc_method_handler(one_to_many),
        ManyToOne=grpc.stream_unary_rpc_method_handler(many_to_one),
        ManyToMany=many_to_many,
    ) as channel:
        assert await unary(channel, "OneToOne", b"a") == b"a1"
        answers = channel.unary_stream(f"/{SERVICE}/OneToMany")(b"a")
        assert [answer async for answer in answers] == [b"a2", b"a3"]
        # The server reads the one request of a unary call as a stream.
        assert await unary(channel, "ManyToOne", b"a") == b"a4"
        both = stream(channel, "ManyToMany")
        await both.write(b"a")
        assert await both.read() == b"a5"
        await both.done_writing()
        assert await both.read() is grpc.aio.EOF
        assert await both.code() is grpc.StatusCode.OK


@on_both
async def test_messages_are_serialized_by_the_handler_and_the_stub(transport: Transport) -> None:
    async def double(request: int, context: Any) -> int:
        return request * 2

    handler = grpc.unary_unary_rpc_method_handler(double, int, lambda number: b"%d" % number)
    async with connected(transport, Double=handler) as channel:
        method = channel.unary_unary(f"/{SERVICE}/Double", lambda number: b"%d" % number, int)
        assert await method(21) == 42


@on_both
async def test_a_handler_knows_its_caller(transport: Transport) -> None:
    seen: list[Any] = []

    async def handle(request: bytes, context: Any) -> bytes:
        metadata = dict(context.invocation_metadata())
        seen.append((metadata["key"], metadata["key-bin"]))
        seen.append(context.time_remaining())
        seen.append(context.code())
        seen.append(context.auth_context()["transport_security_type"])
        assert context.peer().startswith("ipv4:")
        return b""

    async with connected(transport, M=grpc.unary_unary_rpc_method_handler(handle)) as channel:
        await unary(channel, "M", metadata=(("key", "value"), ("key-bin", b"\xff")))
    assert seen == [("value", b"\xff"), None, None, [b"insecure"]]


@on_both
async def test_the_handler_is_searched_in_the_task_that_waits_for_the_request(
    transport: Transport,
) -> None:
    tasks: list[Any] = []

    async def handle(request: bytes, context: Any) -> bytes:
        tasks.append(asyncio.current_task())
        return b""

    class Search(grpc.GenericRpcHandler):
        def service(self, handler_call_details: Any) -> Any:
            tasks.append(asyncio.current_task())
            tasks.append(handler_call_details.method)
            return grpc.unary_unary_rpc_method_handler(handle)

    async with serving(transport) as (server, target), calling(transport, target) as channel:
        server.add_generic_rpc_handlers([Search()])
        await channel.unary_unary("/other.Service/M")(b"")
    assert tasks[0] is tasks[2]
    assert tasks[1] == "/other.Service/M"


@on_both
async def test_an_error_has_its_code_message_and_details(transport: Transport) -> None:
    status = status_pb2.Status(code=grpc.StatusCode.NOT_FOUND.value[0], message="no such job")
    status.details.add().Pack(ErrorInfo(reason="REASON"))
    codes: list[Any] = []

    async def handle(request: bytes, context: Any) -> bytes:
        try:
            await context.abort_with_status(rpc_status.to_status(status))
        finally:
            codes.append(context.code())
        return b""

    async with connected(transport, M=grpc.unary_unary_rpc_method_handler(handle)) as channel:
        error = await failure(unary(channel, "M"))
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "no such job")
    assert rpc_status.from_call(error) == status
    assert codes == [grpc.StatusCode.NOT_FOUND]


@on_both
async def test_an_abort_ends_the_call(transport: Transport) -> None:
    seen: list[BaseException] = []

    async def handle(requests: Any, context: Any) -> None:
        try:
            await context.abort(grpc.StatusCode.ABORTED, "no", (("key", "value"),))
        except grpc.aio.AbortError:
            with pytest.raises(grpc.aio.AbortError) as raised:
                await context.write(b"")
            seen.append(raised.value)
            raise

    async with connected(transport, M=handle) as channel:
        error = await failure(stream(channel, "M").read())
    assert error.code() is grpc.StatusCode.ABORTED
    assert ("key", "value") in list(error.trailing_metadata())
    assert len(seen) == 1


@on_both
async def test_a_bug_of_a_handler_is_unknown(transport: Transport) -> None:
    async def handle(requests: Any, context: Any) -> None:
        raise ValueError("bug")

    async with connected(transport, M=handle) as channel:
        error = await failure(stream(channel, "M").read())
    assert error.code() is grpc.StatusCode.UNKNOWN
    assert "bug" in str(error.details())


@on_both
async def test_a_handler_that_is_cancelled_on_its_own_leaves_the_call_open(
    transport: Transport,
) -> None:
    async def handle(requests: Any, context: Any) -> None:
        raise asyncio.CancelledError

    async with connected(transport, M=handle) as channel:
        error = await failure(stream(channel, "M", timeout=0.3).read())
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@on_both
async def test_an_unknown_method_is_unimplemented(transport: Transport) -> None:
    async with connected(transport) as channel:
        error = await failure(unary(channel, "Unknown"))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


@on_both
async def test_a_deadline_ends_the_call_on_both_sides(transport: Transport) -> None:
    left: list[float] = []
    cancelled = asyncio.Event()

    async def handle(request: bytes, context: Any) -> bytes:
        left.append(context.time_remaining())
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            left.append(context.time_remaining())
            cancelled.set()
            raise
        return b""

    async with connected(transport, M=grpc.unary_unary_rpc_method_handler(handle)) as channel:
        error = await failure(unary(channel, "M", timeout=0.3))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await cancelled.wait()
    assert 0 < left[0] < 0.4
    assert left[1] < 0.1


@on_both
async def test_a_call_of_a_cancelled_task_is_cancelled(transport: Transport) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def handle(request: bytes, context: Any) -> bytes:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return b""

    async with connected(transport, M=grpc.unary_unary_rpc_method_handler(handle)) as channel:
        call = unary(channel, "M")
        task = asyncio.ensure_future(call)
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert call.cancelled()
        assert await call.code() is grpc.StatusCode.CANCELLED
        await cancelled.wait()


@on_both
async def test_a_cancelled_call_raises_in_the_task_that_waits_for_it(transport: Transport) -> None:
    begun = asyncio.Event()

    async def handle(request: bytes, context: Any) -> bytes:
        begun.set()
        await asyncio.Event().wait()
        return b""

    async with connected(transport, M=grpc.unary_unary_rpc_method_handler(handle)) as channel:
        call = unary(channel, "M")
        task = asyncio.ensure_future(call)
        await begun.wait()
        assert call.cancel()
        assert not call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not task.cancelling()


@on_both
async def test_both_sides_hear_of_the_end(transport: Transport) -> None:
    ended = asyncio.Event()
    seen: list[str] = []

    def done(_: object) -> None:
        seen.append("server")
        ended.set()

    async def handle(request: bytes, context: Any) -> bytes:
        context.add_done_callback(done)
        return b"answer"

    async with connected(transport, M=grpc.unary_unary_rpc_method_handler(handle)) as channel:
        call = unary(channel, "M")
        call.add_done_callback(lambda call: seen.append(f"client {call.done()}"))
        assert await call == b"answer"
        await ended.wait()
        call.add_done_callback(lambda _: seen.append("late"))
        assert await call == b"answer"
        assert not call.cancel()
    assert sorted(seen) == ["client True", "late", "server"]
