"""How gRPC wakes the event loop of a server: in a process of its own, which it is decided for."""

import subprocess
import sys

PROGRAM = """
import asyncio

import grpc

from jobledger_server import wakeups

reads = []
recv = wakeups._End.recv


def noted(self, size):
    data = recv(self, size)
    reads.append(len(data))
    return data


wakeups._End.recv = noted


async def echo(request, context):
    return request


async def main():
    server = grpc.aio.server()
    methods = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test", methods)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/test/Echo")
        messages = [b"%d" % number for number in range(500)]
        assert await asyncio.gather(*map(call, messages)) == messages
    await server.stop(None)


with wakeups.waking_by_pipe():
    asyncio.run(main())
print(len(reads), sum(reads))
"""


def test_one_wakeup_is_for_all_events_that_are_there() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    wakeups, events = map(int, done.stdout.split())
    assert events >= 500 * 4  # each call is four for the server alone
    assert wakeups < events
