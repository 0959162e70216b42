"""What calls cost with 5,000,000 jobs in the database, compared with the same with 10,000.

Both sizes are served at the same time, and one caller calls them in turn. What is called for is
picked at random of all jobs and owners, so that calls meet rows that earlier ones did not.
"""

import argparse
import asyncio
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import psutil  # type: ignore[import-untyped]

from benchmarks.processes import BenchmarkError, Generator
from benchmarks.run import Run
from benchmarks.seed import Filled, Job, fill
from benchmarks.targets import Server

SMALL = 10_000
JOB_TYPES = ("render", "upscale", "caption", "train", "export", "transcode", "thumbnail")
STARTS = 3
WARM_UP_CALLS = 20
GIB = 1024**3

BAR = 1.2
"""How many times as long the calls may take that everything waits for."""


@dataclass(frozen=True)
class Call:
    """A call that is measured.

    Attributes:
        jobs: which it is given (see `Filled.pick`; "created": those of the last CreateJob).
        share: the part of a round's calls that is made.
    """

    title: str
    operation: str
    jobs: str = "any"
    share: float = 1.0
    writes: bool = False
    bar: float | None = None


# Jobs of the same types are created and claimed, and what was claimed is completed: so there are
# as many of each at the end of a round as before.
CALLS = (
    Call("CreateJob", "create", writes=True, bar=BAR),
    Call("ClaimJobs", "claim", "created", writes=True, bar=BAR),
    Call("UpdateProgress", "progress", "running", writes=True),
    Call("MarkCompleted with an asset", "complete", writes=True),
    Call("GetJob", "get", bar=BAR),
    Call("ListJobs, first page, large owner", "list", "large", bar=BAR),
    Call("ListJobs, first page, small owner", "list", "small", bar=BAR),
    Call("ListJobs, 10 that failed, large owner", "list_failed", "large"),
    Call("ListJobs, 10 with a label, large owner", "list_project", "large"),
    Call("ListJobs, a label that no job has, small owner", "list_nothing", "small"),
    Call("ListJobs, a label that no job has, large owner", "list_nothing", "large", share=0.025),
    Call("ListAssets", "assets"),
    Call("ListTransitions", "transitions"),
    Call("WatchJob, first message", "watch", bar=BAR),
    Call("WatchJobs, first message, large owner", "watch_all", "large"),
    Call("WatchJobs, in sync, small owner", "sync", "small"),
    Call("WatchJobs, from 20,000 changes back, large owner", "resume", "large", share=0.025),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--jobs", type=int, default=5_000_000, metavar="N", help="default: 5000000")
    parser.add_argument(
        "--calls", type=int, default=200, metavar="N", help="of each kind a round; default: 200"
    )


def measure(run: Run) -> None:
    """Measure both sizes on each database. Raises BenchmarkError."""
    run.report.note(f"The ceiling is the same with {SMALL:,} jobs.")
    for name in run.databases:
        filled = []
        for jobs in (SMALL, run.arguments.jobs):
            run.tell(f"filling {name} with {jobs:,} jobs")
            filled.append(fill(run.database(name), jobs, *JOB_TYPES))
            run.report.note(_describe(filled[-1]))
        _measure_starts(run, filled)
        servers = [run.serving(one.database) for one in filled]
        (caller,) = run.generators("load.growth", 1)
        calls = _Calls(list(zip(filled, servers, strict=True)), caller)
        for call in CALLS:
            calls.alternate(call, WARM_UP_CALLS)
        for _ in run.each_round():
            for call in CALLS:
                small, large = calls.alternate(call, run.arguments.calls)
                title = f"{call.title}, {name}"
                bar = {} if call.bar is None else {"bar": call.bar}
                run.report.time(title, "ms", large * 1e3, small * 1e3, **bar)
        for server in servers:
            server.kill()
        run.report.note(
            f"{name}: {calls.written:,} writes were acknowledged by each server, and its feed "
            "advanced by one for each."
        )


def _measure_starts(run: Run, filled: Sequence[Filled]) -> None:
    """Start a server on the small database, then one on the large, each alone."""
    for _ in range(min(STARTS, run.rounds)):
        seconds = []
        for one in filled:
            server = Server(one.database)
            seconds.append(server.start())
            server.kill()
        name = filled[0].database.name
        run.report.time(f"start to SERVING, {name}", "ms", seconds[1] * 1e3, seconds[0] * 1e3)


class _Calls:
    """Makes calls of each kind in turn on the small database and on the large one."""

    def __init__(self, sides: Sequence[tuple[Filled, Server]], caller: Generator) -> None:
        self.written = 0
        self._sides = sides
        self._caller = caller
        self._jobs: dict[str, list[Job]] = {}

    def alternate(self, call: Call, calls: int) -> list[float]:
        """Make a call's share of so many on each server; return each one's median in seconds."""
        calls = max(1, round(calls * call.share))
        if call.jobs != "created":
            self._jobs = {
                server.target: [filled.pick(call.jobs) for _ in range(calls)]
                for filled, server in self._sides
            }
        before = self._seqs()
        reply = self._caller.do("alternate", jobs=self._jobs, operation=call.operation)
        if call.writes:
            self.written += calls
            before = [seq + calls for seq in before]
        if (found := self._seqs()) != before:
            raise BenchmarkError(
                f"after {calls} calls of {call.title} on each server the feeds are at {found}, "
                f"not at {before}"
            )
        return [statistics.median(seconds) for seconds in reply["seconds"].values()]

    def _seqs(self) -> list[int]:
        return [filled.database.feed_seq() for filled, _ in self._sides]


def _describe(filled: Filled) -> str:
    """Say how large a database is, how long it took to fill, and what memory there is for it."""
    rows, memory = filled.rows, psutil.virtual_memory()
    return (
        f"{filled.database.name} with {rows.jobs:,} jobs, {rows.running + rows.waiting:,} of them "
        f"active, has {_bytes_of(filled) / GIB:.2f} GiB and was filled in {filled.seconds:.0f} s; "
        f"then the system's page cache held {memory.cached / GIB:.1f} GiB, of "
        f"{memory.total / GIB:.0f} GiB of memory."
    )


def _bytes_of(filled: Filled) -> int:
    if filled.database.pid is None:
        return Path(filled.database.file).stat().st_size
    return asyncio.run(_ask_size(filled.database.url))


async def _ask_size(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        size: int = await connection.fetchval("SELECT pg_database_size(current_database())")
    finally:
        await connection.close()
    return size
