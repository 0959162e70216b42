"""The load generator of etcd's lifecycles, a program: as load.py, and it puts and watches keys."""

import asyncio
import itertools
import time
import uuid
from typing import Any

import grpc
import uvloop

from benchmarks.etcd_messages import EtcdStub, PutRequest, WatchRequest
from benchmarks.grpc_load import Load, Reply, Wrong, connect, main
from benchmarks.load.messages import full_job

PUTS = 8
"""As many as a job has changes: create, claim, progress four times, asset, complete."""

VALUE = full_job().SerializeToString()


class EtcdLoad(Load):
    """All that this process can do; each method is a command."""

    def __init__(self) -> None:
        super().__init__()
        self._stubs: dict[str, EtcdStub] = {}

    async def put(self, *, target: str, keys: int, in_flight: int) -> Reply:
        """Put each key PUTS times, one put after the other, and watch it from before the first.

        Return when that began, and of each key when its last put was acknowledged and when its
        watcher knew of it.
        """
        stub = self._stubs.setdefault(target, EtcdStub(connect(target)))
        prefix = uuid.uuid4().hex
        names = (f"{prefix}/{number}".encode() for number in itertools.count())
        todo = itertools.islice(names, keys)
        times: list[tuple[float, float]] = []

        async def owner() -> None:
            times.extend([await _live(stub, key) for key in todo])

        begin = time.monotonic()
        async with asyncio.TaskGroup() as owners:
            for _ in range(in_flight):
                owners.create_task(owner())
        return {"begin": begin, "times": times}


async def _live(stub: EtcdStub, key: bytes) -> tuple[float, float]:
    watch = stub.Watch()
    try:
        await watch.write(WatchRequest(create_request={"key": key}))
        # From the first moment on: a watch that begins in the past catches up only in etcd's
        # next look for such ones, each 100 ms.
        if not (await _read(watch)).created:
            raise Wrong("a watch did not begin with word that it exists")
        watching = asyncio.create_task(_follow(watch))
        for _ in range(PUTS):
            await stub.Put(PutRequest(key=key, value=VALUE))
        acknowledged = time.monotonic()
        return acknowledged, await watching
    finally:
        watch.cancel()


async def _follow(watch: Any) -> float:
    """Read until the last put is told, and see that each was; return when the last was."""
    versions: list[int] = []
    while len(versions) < PUTS:
        message = await _read(watch)
        told = time.monotonic()
        versions += (event.kv.version for event in message.events)
    if versions != list(range(1, PUTS + 1)):
        raise Wrong(f"a watch told of versions {versions}")
    return told


async def _read(watch: Any) -> Any:
    message = await watch.read()
    if message is grpc.aio.EOF or message.canceled:
        raise Wrong("a watch ended before its key was complete")
    return message


if __name__ == "__main__":
    uvloop.run(main(EtcdLoad()))
