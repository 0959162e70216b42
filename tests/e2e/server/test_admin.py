"""Channelz, on a loopback port of their own."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from jobledger_server.rpc.serving.admin import AdminUnavailable, serving_admin
from tests.support.ports import free_port
from tests.support.rpc_caller import Caller

Start = Callable[..., Any]


@pytest.fixture
def address() -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
async def admin(start: Start, address: str) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to the admin port of a server that has been called."""
    app = await start(admin=address)
    async with (
        grpc.aio.insecure_channel(app.address) as channel,
        grpc.aio.insecure_channel(address) as admin,
    ):
        await Caller(channel).job()
        yield admin


async def test_channelz_knows_the_server_and_its_calls(admin: grpc.aio.Channel) -> None:
    channelz = channelz_pb2_grpc.ChannelzStub(admin)
    servers = (await channelz.GetServers(channelz_pb2.GetServersRequest())).server
    assert max(each.data.calls_succeeded for each in servers) >= 1


async def test_the_admin_port_offers_reflection(admin: grpc.aio.Channel) -> None:
    stream = reflection_pb2_grpc.ServerReflectionStub(admin).ServerReflectionInfo()
    await stream.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    listed = (await stream.read()).list_services_response.service
    stream.cancel()
    assert {each.name for each in listed} == {
        "grpc.channelz.v1.Channelz",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    }


async def test_the_main_port_does_not_serve_channelz(start: Start, address: str) -> None:
    app = await start(admin=address)
    async with grpc.aio.insecure_channel(app.address) as channel:
        channelz = channelz_pb2_grpc.ChannelzStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channelz.GetServers(channelz_pb2.GetServersRequest())
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.1:9000"])
async def test_the_admin_port_is_refused_off_loopback(listen: str) -> None:
    with pytest.raises(AdminUnavailable, match="loopback"):
        async with serving_admin(listen):
            pass


async def test_a_port_in_use_is_reported_with_an_explanation(address: str) -> None:
    async with serving_admin(address):
        with pytest.raises(AdminUnavailable, match=address):
            async with serving_admin(address):
                pass
