"""Lives of etcd's keys: each is put as often as a job is changed, and watched meanwhile."""

import asyncio
import itertools
import time
import uuid
from typing import Any

import grpc

from benchmarks.load.etcd_messages import EtcdStub, PutRequest, WatchRequest
from benchmarks.load.messages import full_job
from benchmarks.load.program import Reply, Wrong, serve

PUTS = 8
"""As many as a job has changes: create, claim, progress four times, asset, complete."""

VALUE = full_job().SerializeToString()


class Keys:
    """All that this process can do; each method is a command."""

    def __init__(self) -> None:
        self._stubs: dict[str, EtcdStub] = {}

    async def put(self, *, target: str, keys: int, in_flight: int) -> Reply:
        """Put each key PUTS times, one put after the other, and watch it from before the first.

        Return when that began, and of each key when its last put was acknowledged and when its
        watch received it.
        """
        if target not in self._stubs:
            self._stubs[target] = EtcdStub(grpc.aio.insecure_channel(target))
        stub = self._stubs[target]
        prefix = uuid.uuid4().hex
        names = (f"{prefix}/{number}".encode() for number in itertools.count())
        left = itertools.islice(names, keys)
        times: list[tuple[float, float]] = []

        async def owner() -> None:
            times.extend([await _live(stub, key) for key in left])

        begin = time.monotonic()
        async with asyncio.TaskGroup() as owners:
            for _ in range(in_flight):
                owners.create_task(owner())
        return {"begin": begin, "times": times}


async def _live(stub: EtcdStub, key: bytes) -> tuple[float, float]:
    watch = stub.Watch()
    try:
        await watch.write(WatchRequest(create_request={"key": key}))
        # From the first moment on: a watch that begins in the past catches up only every 100 ms.
        if not (await _read(watch)).created:
            raise Wrong("the first message of a watch did not confirm it")
        watching = asyncio.create_task(_receive(watch))
        for _ in range(PUTS):
            await stub.Put(PutRequest(key=key, value=VALUE))
        acknowledged = time.monotonic()
        return acknowledged, await watching
    finally:
        watch.cancel()


async def _receive(watch: Any) -> float:
    """Read every put; return when the last one was received."""
    versions: list[int] = []
    while len(versions) < PUTS:
        message = await _read(watch)
        received = time.monotonic()
        versions += (event.kv.version for event in message.events)
    if versions != list(range(1, PUTS + 1)):
        raise Wrong(f"a watch received versions {versions}")
    return received


async def _read(watch: Any) -> Any:
    message = await watch.read()
    if message is grpc.aio.EOF or message.canceled:
        raise Wrong("a watch ended before its key was complete")
    return message


if __name__ == "__main__":
    serve(Keys)
