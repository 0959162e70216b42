"""Measures what a change costs the ledger and its database alone, by how many share a batch.

    python -m benchmarks.ledger_alone [--quick] [--only DATABASE...]

There is no gRPC and no other process but PostgreSQL's: so a change of the ledger or the store
shows here first, and on a busy machine only here.
"""

import argparse
import asyncio
import itertools
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop

from benchmarks.outcome import describe_machine
from benchmarks.processes import BenchmarkError, cpu_seconds
from benchmarks.subjects import DATABASES, Database, new_database
from jobledger_server.domain.commands import Claim, Create, JobCommand, Report
from jobledger_server.domain.model import JobId, Micros, Payload
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.sql.engine import open_database, parse_url
from jobledger_server.sql.store import SqlStore

TOGETHER = (1, 16, 64, 512)
"""Commands that arrive at once, each time when the last ones are answered."""

RUNNING = 800
"""Jobs that are reported on, in turn."""

OWNERS = 50
LEASE = Micros(3600 * 1_000_000)
PARAMETERS = Payload(b"\n\x12\n\x05width\x12\t\x11\x00\x00\x00\x00\x00\x00\x9e@" * 4)


@dataclass(frozen=True)
class Cost:
    """Processor time of one change, in microseconds: of this process, and of PostgreSQL's."""

    ledger: float
    database: float


class Changes:
    """Makes changes in one ledger, measures them, and finds each of them in the feed."""

    def __init__(self, ledger: Ledger, store: SqlStore, database: Database) -> None:
        self._ledger = ledger
        self._store = store
        self._database = database
        self._numbers = itertools.count()
        self._running: list[JobId] = []

    async def prepare(self) -> None:
        """Make the jobs that are reported on."""
        await self._make(self._creation, RUNNING, together=100)
        claim = Claim(
            worker_id="w", job_types=frozenset({"bench"}), max_jobs=100, lease_duration=LEASE
        )
        while len(self._running) < RUNNING:
            self._running += [job.id for job in await self._ledger.claim(claim)]

    async def creations(self, count: int, together: int) -> Cost:
        return await self._measured(self._creation, count, together)

    async def reports(self, count: int, together: int) -> Cost:
        return await self._measured(self._report, count, together)

    async def _measured(
        self, command: Callable[[int], Create | JobCommand], count: int, together: int
    ) -> Cost:
        await self._make(command, count // 10, together)
        seq = (await self._store.feed_head()).seq
        before = time.process_time(), self._database_seconds()
        await self._make(command, count, together)
        after = time.process_time(), self._database_seconds()
        if (written := (await self._store.feed_head()).seq - seq) != count:
            raise BenchmarkError(f"of {count} changes {written} are in the feed")
        ledger, database = ((b - a) / count * 1e6 for a, b in zip(before, after, strict=True))
        return Cost(ledger, database)

    async def _make(
        self, command: Callable[[int], Create | JobCommand], count: int, together: int
    ) -> None:
        for start in range(0, count, together):
            numbers = itertools.islice(self._numbers, min(together, count - start))
            await asyncio.gather(*(self._ledger.apply(command(number)) for number in numbers))

    def _creation(self, number: int) -> Create:
        return Create(
            user_id=f"user-{number % OWNERS}",
            job_type="bench",
            request_id=uuid.uuid4().hex,
            labels={"team": "video", "env": "prod"},
            parameters=PARAMETERS,
        )

    def _report(self, number: int) -> Report:
        job_id = self._running[number % RUNNING]
        return Report(job_id=job_id, attempt=1, progress=50, progress_message=f"m{number}")

    def _database_seconds(self) -> float:
        return 0.0 if self._database.pid is None else cpu_seconds(self._database.pid)


async def measure(database: Database, *, rounds: int, changes: int) -> Iterator[tuple[str, Cost]]:
    """Return each kind of change and the number that come together, with medians of the rounds."""
    store = SqlStore(open_database(parse_url(database.url)))
    found: dict[str, list[Cost]] = {}
    async with Ledger(store, lambda _: None, max_waiting=10_000) as ledger:
        made = Changes(ledger, store, database)
        await made.prepare()
        for _ in range(rounds):
            for together in TOGETHER:
                count = changes if together > 1 else changes // 10
                for name, cost in (
                    ("creation", await made.creations(count, together)),
                    ("report", await made.reports(count, together)),
                ):
                    found.setdefault(f"{name}, {together:>3} together", []).append(cost)
    await store.close()
    return ((name, _median(costs)) for name, costs in found.items())


def _median(costs: Sequence[Cost]) -> Cost:
    return Cost(
        statistics.median(cost.ledger for cost in costs),
        statistics.median(cost.database for cost in costs),
    )


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="less of everything, in 20 s")
    parser.add_argument("--only", nargs="+", choices=DATABASES, default=DATABASES)
    arguments = parser.parse_args()
    rounds, changes = (1, 4_000) if arguments.quick else (5, 8_000)
    print(", ".join(f"{name} {value}" for name, value in describe_machine().items()))
    print(f"processor time, microseconds a change, medians of {rounds} rounds\n")
    try:
        with tempfile.TemporaryDirectory(prefix="jobledger-bench-") as folder:
            for name in arguments.only:
                with new_database(name, Path(folder)) as database:
                    print(f"{name:24}{'ledger':>10}{'database':>10}")
                    run = measure(database, rounds=rounds, changes=changes)
                    for title, cost in sorted(uvloop.run(run)):
                        print(f"  {title:22}{cost.ledger:10.1f}{cost.database:10.1f}")
    except BenchmarkError as error:
        sys.exit(f"ledger alone: {error}")


if __name__ == "__main__":
    main()
