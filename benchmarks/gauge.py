"""A server under load for a while: what it did, what that cost, and that all of it is committed."""

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from benchmarks.processes import BareServer, BenchmarkError, Generator, all_do, cpu_seconds
from benchmarks.stats import Report
from benchmarks.targets import Server

WARM_UP_SECONDS = 0.25


@dataclass(frozen=True)
class Reading:
    """What came of it. CPU times are in microseconds, bytes in bytes, for each acknowledged call.

    Attributes:
        rate: calls a second after the warm-up.
        calls: all that were acknowledged.
        wal: bytes of write-ahead log, on PostgreSQL.
        server_cores: how much of a core the server used.
        generator_cores: the same of the busiest generator.
    """

    rate: float
    calls: int
    server_cpu: float
    database_cpu: float | None
    generator_cpu: float
    wal: float | None
    server_cores: float
    generator_cores: float


class Gauge:
    """Has all generators do the same to a server, and reads what everyone used."""

    def __init__(
        self, generators: Sequence[Generator], *, seconds: float, warm_up: float = WARM_UP_SECONDS
    ) -> None:
        self.generators = generators
        self._seconds = seconds
        self._warm_up = warm_up

    def rate(self, server: BareServer | Server, operation: str, *, in_flight: int) -> Reading:
        """Keep `in_flight` calls of an operation going."""
        share = max(1, in_flight // len(self.generators))
        return self.read(server, "rate", operation=operation, in_flight=share)

    def read(self, server: BareServer | Server, command: str, **arguments: Any) -> Reading:
        """Have a command of the generators done that replies with its `rate` and its `calls`."""
        database = server.database.pid if isinstance(server, Server) else None
        pids = [server.pid, *(generator.pid for generator in self.generators)]
        pids += [] if database is None else [database]
        wal = _wal_bytes(server)
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
        if not calls:
            raise BenchmarkError("no call was answered in time: give it more --seconds")
        wal_after = _wal_bytes(server)
        return Reading(
            rate=sum(reply["rate"] for reply in replies),
            calls=calls,
            server_cpu=used[0] / calls * 1e6,
            database_cpu=None if database is None else used[-1] / calls * 1e6,
            generator_cpu=sum(generating) / calls * 1e6,
            wal=None if wal is None or wal_after is None else (wal_after - wal) / calls,
            server_cores=used[0] / wall,
            generator_cores=max(generating) / wall,
        )


class Committed:
    """Compares what a server acknowledges with what is committed to its database.

    Attributes:
        changes: how many acknowledged changes were found so far.
    """

    def __init__(self) -> None:
        self.changes = 0

    def checked(self, server: Server, measure: Callable[[], Reading], *, each: int) -> Reading:
        """Measure, and find in the feed `each` change of every acknowledged call, and no more.

        Raises BenchmarkError.
        """
        before = server.database.feed_seq()
        reading = measure()
        self.check(server, reading.calls * each, before)
        return reading

    def check(self, server: Server, acknowledged: int, before: int) -> None:
        """Raise BenchmarkError unless the feed has advanced by the acknowledged changes."""
        committed = server.database.feed_seq() - before
        if committed != acknowledged:
            raise BenchmarkError(
                f"{server.database.name}: {acknowledged} changes were acknowledged, "
                f"{committed} are committed"
            )
        self.changes += acknowledged

    @property
    def note(self) -> str:
        return f"All {self.changes:,} acknowledged changes were found in the database."


class Ceiling:
    """What does nothing, measured between all others; each is compared with both its neighbors."""

    def __init__(self, measure: Callable[[], Reading]) -> None:
        self._measure = measure
        self.readings = [measure()]

    def begin_round(self) -> None:
        self.readings.append(self._measure())

    def beside(self, reading: Reading) -> tuple[Reading, float, float]:
        """Return a reading, and of what was measured before and after it the rate and the CPU."""
        before = self.readings[-1]
        after = self._measure()
        self.readings.append(after)
        rate = statistics.mean((before.rate, after.rate))
        return reading, rate, statistics.mean((before.server_cpu, after.server_cpu))

    def note(self, generators: int) -> str:
        """Say what was busy: where a generator has no core left, it is the limit."""
        server, cores, cost = (
            statistics.median(getattr(reading, name) for reading in self.readings)
            for name in ("server_cores", "generator_cores", "generator_cpu")
        )
        return (
            f"At the ceiling the bare server used {server:.2f} cores, each of the {generators} "
            f"generators {cores:.2f}, which is {cost:.0f} µs of CPU a call for the load. A "
            "generator near 1 core would be the limit itself."
        )


def add_reading(
    report: Report,
    title: str,
    unit: str,
    measured: tuple[Reading, float, float],
    *,
    each: int = 1,
    bar: float | None = None,
) -> None:
    """Add a round of what counts in `unit`, so many `each` call, beside its ceiling."""
    reading, rate, cpu = measured
    report.cost(f"{title}: server CPU", f"µs/{unit}", reading.server_cpu / each, cpu)
    if reading.database_cpu is not None:
        report.cost(f"{title}: database CPU", f"µs/{unit}", reading.database_cpu / each)
    if reading.wal is not None:
        report.cost(f"{title}: write-ahead log", f"B/{unit}", reading.wal / each)
    bars = {} if bar is None else {"bar": bar}
    report.rate(title, f"{unit}s/s", reading.rate * each, rate, **bars)


def _wal_bytes(server: BareServer | Server) -> int | None:
    """Return how much PostgreSQL has written until now; None for a server on something else."""
    if isinstance(server, BareServer) or server.database.pid is None:
        return None
    return asyncio.run(_wal_position(server.database.url))


async def _wal_position(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))
    finally:
        await connection.close()
