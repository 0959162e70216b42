"""A server under load for a while: what it did, and what that cost of the machine."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.processes import BareServer, Generator, all_do, cpu_seconds
from benchmarks.subjects import Subject

WARM_UP_SECONDS = 0.25

Server = BareServer | Subject


@dataclass(frozen=True)
class Reading:
    """What came of it. Processor time is in microseconds for each call that was acknowledged."""

    rate: float
    calls: int
    server_cpu: float
    database_cpu: float | None
    generator_cpu: float
    server_cores: float
    generator_cores: float


class Gauge:
    """Has all generators do the same to a server, and reads what everybody used."""

    def __init__(
        self,
        generators: Sequence[Generator],
        *,
        seconds: float,
        warm_up: float = WARM_UP_SECONDS,
    ) -> None:
        self.generators = generators
        self._seconds = seconds
        self._warm_up = warm_up

    def rate(self, server: Server, operation: str, *, in_flight: int) -> Reading:
        """Keep `in_flight` calls of an operation going."""
        share = in_flight // len(self.generators)
        return self.read(server, "rate", operation=operation, in_flight=share)

    def warm_up(self, server: Server, operation: str, *, in_flight: int) -> None:
        brief = Gauge(self.generators, seconds=WARM_UP_SECONDS)
        brief.rate(server, operation, in_flight=in_flight)

    def read(self, server: Server, command: str, **arguments: Any) -> Reading:
        """Have a command of the generators done that replies with its `rate` and its `calls`."""
        database = server.database_pid if isinstance(server, Subject) else None
        pids = [server.pid, *(generator.pid for generator in self.generators)]
        pids += [] if database is None else [database]
        used = [cpu_seconds(pid) for pid in pids]
        begin = time.monotonic()
        replies = all_do(
            self.generators,
            command,
            target=server.target,
            warm_up=self._warm_up,
            seconds=self._seconds,
            **arguments,
        )
        wall = time.monotonic() - begin
        used = [cpu_seconds(pid) - before for pid, before in zip(pids, used, strict=True)]
        generating = used[1 : len(self.generators) + 1]
        calls = sum(reply["calls"] for reply in replies)
        return Reading(
            rate=sum(reply["rate"] for reply in replies),
            calls=calls,
            server_cpu=used[0] / calls * 1e6,
            database_cpu=None if database is None else used[-1] / calls * 1e6,
            generator_cpu=sum(generating) / calls * 1e6,
            server_cores=used[0] / wall,
            generator_cores=max(generating) / wall,
        )
