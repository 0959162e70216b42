"""Two servers under the same load in turn: the work they are given, and what it takes of them."""

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.load.messages import BATCH
from benchmarks.processes import BenchmarkError, Generator, cpu_seconds
from benchmarks.targets import Server

IN_FLIGHT = 64
BATCHES_IN_FLIGHT = 4
STREAMS = 4
JOBS = 400
WINDOW = 250
"""Reports of a stream that are under way at once."""

LIVES = 128

Work: TypeAlias = Callable[[Server, float], tuple[int, int]]
"""Has a server do something for so many seconds; returns how much, and how many changes that was.

How much is counted in the unit that the work's costs are given for.
"""


WORKS = {
    "CreateJob": "call",
    "UpdateProgress": "call",
    "GetJob": "call",
    "BatchCreateJobs": "job",
    "ReportProgress": "report",
    "lifecycle": "lifecycle",
}
"""The kinds of work, each with the unit that its costs are given for."""


@dataclass
class Usage:
    """How much a server has done in its slices of time, and what that took, in seconds."""

    done: int = 0
    wall: float = 0.0
    server: float = 0.0
    database: float = 0.0

    def add(self, other: "Usage") -> None:
        self.done += other.done
        self.wall += other.wall
        self.server += other.server
        self.database += other.database


class Side:
    """A server of one revision, and how many changes its database must have by now."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._seq = server.database.feed_seq()

    def use(self, work: Work, seconds: float) -> Usage:
        """Have work done, and measure what it takes."""
        before, begin = self._cpu(), time.monotonic()
        done, changes = work(self.server, seconds)
        wall, after = time.monotonic() - begin, self._cpu()
        self._seq += changes
        return Usage(done, wall, after[0] - before[0], after[1] - before[1])

    def check(self) -> None:
        """Raise BenchmarkError unless what was acknowledged is what was committed."""
        if (found := self.server.database.feed_seq()) != self._seq:
            raise BenchmarkError(
                f"{self.server.database.name}: the feed is at {found}; with all acknowledged "
                f"changes it would be at {self._seq}"
            )

    def _cpu(self) -> tuple[float, float]:
        pid = self.server.database.pid
        return cpu_seconds(self.server.pid), 0.0 if pid is None else cpu_seconds(pid)


class Loads:
    """The processes that make the load, and the kinds of work that they have done."""

    def __init__(self, stack: ExitStack) -> None:
        self._caller = stack.enter_context(Generator("load.calls"))
        self._owners = stack.enter_context(Generator("load.lifecycle"))
        self._worker = stack.enter_context(Generator("load.lifecycle"))
        self._pipe = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "deliveries"
        os.mkfifo(self._pipe)

    def prepare(self, server: Server) -> None:
        """Create and start the jobs that are reported on and read."""
        self._caller.do("prepare", target=server.target, jobs=JOBS)

    def check(self, server: Server) -> None:
        """Raise BenchmarkError unless each of these jobs is as the last answer said."""
        self._caller.do("check", target=server.target)

    def work(self, name: str) -> Work:
        """Return a kind of work, one of WORKS, with many calls at once."""
        return {
            "CreateJob": self.calls("create"),
            "UpdateProgress": self.calls("progress"),
            "GetJob": self.calls("get", each=0),
            "BatchCreateJobs": self.calls("batch", BATCHES_IN_FLIGHT, BATCH),
            "ReportProgress": self.reports(),
            "lifecycle": self.lives(),
        }[name]

    def calls(self, operation: str, in_flight: int = IN_FLIGHT, each: int = 1) -> Work:
        """Keep calls going that make `each` change."""

        def work(server: Server, seconds: float) -> tuple[int, int]:
            calls = self._caller.do(
                "rate",
                target=server.target,
                operation=operation,
                in_flight=in_flight,
                warm_up=0.0,
                seconds=seconds,
            )["calls"]
            return calls * max(1, each), calls * each

        return work

    def reports(self, streams: int = STREAMS, window: int = WINDOW) -> Work:
        """Keep reports going over streams."""

        def work(server: Server, seconds: float) -> tuple[int, int]:
            calls = self._caller.do(
                "report",
                target=server.target,
                streams=streams,
                jobs=JOBS // STREAMS,
                window=window,
                known=True,
                warm_up=0.0,
                seconds=seconds,
            )["calls"]
            return calls, calls

        return work

    def lives(self, jobs: int = LIVES, in_flight: int = IN_FLIGHT) -> Work:
        """Let jobs be created, done and watched, each with every update."""

        def work(server: Server, _: float) -> tuple[int, int]:
            how: dict[str, Any] = {
                "target": server.target,
                "jobs": jobs,
                "pipe": str(self._pipe),
            }
            self._worker.begin("work", **how)
            lived = self._owners.do("live", in_flight=in_flight, **how)
            self._worker.end()
            return jobs, sum(version for _, _, version in lived["ended"])

        return work

    def one_by_one(self, operation: str, calls: int, each: int = 1) -> Work:
        """Make calls one after the other."""

        def work(server: Server, _: float) -> tuple[int, int]:
            self.seconds_alone(server, operation, calls)
            return calls, calls * each

        return work

    def seconds_alone(self, server: Server, operation: str, calls: int) -> list[float]:
        """Make calls one after the other; return each one's seconds."""
        reply = self._caller.do("latencies", target=server.target, operation=operation, calls=calls)
        seconds: list[float] = reply["seconds"]
        return seconds
