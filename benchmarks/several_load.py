"""The load generator of several.py, a program: as load.py, over many connections in turn."""

import itertools
from typing import Any

import uvloop
from load import Load, Target, connect, main

from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger.v1.worker_service_pb2_grpc import WorkerServiceStub

CONNECTIONS = 8
"""Of each generator to each server: the kernel deals them out to the server's processes."""


class InTurn:
    """The stubs of several connections as one: each call goes over the next."""

    def __init__(self, stubs: list[Any]) -> None:
        self._turns = itertools.cycle(stubs)

    def __getattr__(self, name: str) -> Any:
        return getattr(next(self._turns), name)


class SpreadTarget(Target):
    """One server over many connections."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        channels = [connect(address) for _ in range(CONNECTIONS)]
        self._jobs = InTurn([JobServiceStub(channel) for channel in channels])
        self._workers = InTurn([WorkerServiceStub(channel) for channel in channels])


class SeveralLoad(Load):
    """All that this process can do; each method is a command."""

    def _target(self, address: str) -> Target:
        if address not in self._targets:
            self._targets[address] = SpreadTarget(address)
        return self._targets[address]


if __name__ == "__main__":
    uvloop.run(main(SeveralLoad()))
