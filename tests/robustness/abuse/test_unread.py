"""A client that reads no answer: what the server keeps for it is bounded."""

import asyncio

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct, Value

from tests.robustness.abuse.attacker import attack
from tests.robustness.abuse.good_client import good_client, served_alone
from tests.robustness.abuse.http2_attacks import unread_answers
from tests.support.databases import sqlite_only
from tests.support.rpc_caller import Caller
from tests.support.server_process import MIB, ServerProcess


@pytest.mark.promise(number=64)
@pytest.mark.slow
@sqlite_only
async def test_unread_answers_do_not_delay_other_clients(proxied_server: ServerProcess) -> None:
    alone = await served_alone(proxied_server.target)
    async with grpc.aio.insecure_channel(proxied_server.target) as channel:
        blob = Struct(fields={"blob": Value(string_value="x" * 250_000)})
        job = await Caller(channel).job(user_id="eve", parameters=blob)
    before = proxied_server.peak_memory
    options = {"job_id": job.id, "user_id": "eve", "connections": 4, "calls": 1000}
    async with attack(unread_answers, proxied_server.target, **options) as attacker:
        await attacker.begun()
        # After the burst: what is measured is what the answers cost that wait to be read.
        assert (await served_alone(proxied_server.target, 0)).failed == []
        async with good_client(proxied_server.target) as good:
            await asyncio.sleep(3)
        assert await attacker.report() == {"calls": 4000}
    good.assert_served(alone)
    # A gigabyte was asked for. Each connection gets a quarter of 256 MiB, and gRPC copies it.
    assert proxied_server.peak_memory - before < 700 * MIB
