"""Many watchers of one job: how long a change takes to reach the last, what an idle one costs."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.processes import BareServer, Generator, all_do, resident_bytes
from benchmarks.report import Figure
from benchmarks.subjects import Subject

SETTLE_SECONDS = 0.2


@dataclass
class _Side:
    """One of the two servers, and the job that is watched on it."""

    target: str
    pid: int
    job_id: str = "any"
    version: int = 1


class Fanout:
    """Opens the streams on both servers, then makes a change on each in turn."""

    def __init__(
        self,
        bare: BareServer,
        subject: Subject,
        generators: Sequence[Generator],
        caller: Generator,
        *,
        streams: int,
    ) -> None:
        self._bare = _Side(bare.target, bare.pid)
        self._ours = _Side(subject.target, subject.pid)
        self._generators = generators
        self._caller = caller
        self._streams = streams
        watchers = f"{streams:,} watchers"
        self._opened = Figure(f"{watchers}: all opened", "s")
        self._memory = Figure("an idle watch: server's memory", "KiB", bar=1.3)
        self._half = Figure(f"one change to {watchers}: half have it", "ms")
        self._last = Figure(f"one change to {watchers}: all have it", "ms", bar=1.25)
        self._answer = Figure(f"one change to {watchers}: its own answer", "ms")

    @property
    def figures(self) -> list[Figure]:
        return [self._last, self._half, self._answer, self._opened, self._memory]

    notes: tuple[str, ...] = ()

    def prepare(self) -> None:
        """Open every stream, which is measured as well: once, for memory is not given back."""
        for side in (self._bare, self._ours):
            self._caller.do("latencies", target=side.target, operation="create", calls=200)
        job = self._caller.do("make_job", target=self._ours.target)
        self._ours.job_id, self._ours.version = job["job_id"], job["version"]
        bare_seconds, bare_bytes = self._open(self._bare)
        our_seconds, our_bytes = self._open(self._ours)
        self._opened.add(our_seconds, bare_seconds)
        self._memory.add(our_bytes / 1024, bare_bytes / 1024)
        for side in (self._bare, self._ours):
            self._change(side)  # the first is slower: every stream does everything for once

    def measure_round(self) -> None:
        bare = self._change(self._bare)
        ours = self._change(self._ours)
        for figure, value, ceiling in zip(
            (self._half, self._last, self._answer), ours, bare, strict=True
        ):
            figure.add(value, ceiling)

    def _open(self, side: _Side) -> tuple[float, float]:
        """Return the seconds it took and the server's memory for each stream, in bytes."""
        before = resident_bytes(side.pid)
        replies = all_do(
            self._generators,
            "open",
            target=side.target,
            job_id=side.job_id,
            streams=self._streams // len(self._generators),
        )
        grown = resident_bytes(side.pid) - before
        return max(reply["seconds"] for reply in replies), grown / self._streams

    def _change(self, side: _Side) -> tuple[float, float, float]:
        """Make one change; return when half had it, all had it, and it was acknowledged.

        In milliseconds from when it was asked for: the commit is in between, and
        the answer may come after deliveries.
        """
        time.sleep(SETTLE_SECONDS)
        all_do(self._generators, "expect", target=side.target, version=side.version + 1)
        change = self._caller.do(
            "change", target=side.target, job_id=side.job_id, version=side.version
        )
        side.version += 1
        deliveries = all_do(self._generators, "delivered", target=side.target)
        asked = change["asked"]
        middle = sum(delivery["middle"] for delivery in deliveries) / len(deliveries)
        last = max(delivery["last"] for delivery in deliveries)
        return (
            (middle - asked) * 1000,
            (last - asked) * 1000,
            (change["acknowledged"] - asked) * 1000,
        )
