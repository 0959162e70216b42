"""One caller, two servers: each call beside few jobs, then beside many, and so on in turn."""

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from benchmarks.growth_subjects import Job, Sized
from benchmarks.idle import time_look
from benchmarks.processes import BenchmarkError, Generator
from benchmarks.report import Figure
from benchmarks.subjects import Subject, serving_on

WARM_UP_CALLS = 20

BAR = 1.2
"""How many times as long the calls may take that everything waits for."""


@dataclass(frozen=True)
class Call:
    """A call that is measured.

    `jobs` says which it is given (see `Sized.pick`; "created": those of the last
    CreateJob), `share` how many of a round's calls are made.
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
    Call("WatchJobs, first message, large owner", "follow", "large"),
    Call("WatchJobs, first message, small owner", "follow", "small"),
    Call("WatchJobs, all told, small owner", "sync", "small"),
    Call("WatchJobs, from 20,000 places back, large owner", "resume", "large", share=0.025),
)


class GrowthCalls:
    """Makes every call so many times a round, each for a job or an owner picked at random."""

    def __init__(
        self, sides: Sequence[tuple[Sized, Subject]], caller: Generator, calls: int
    ) -> None:
        self._sides = sides
        self._caller = caller
        self._calls = calls
        self._name = sides[0][0].database.name
        self._figures: dict[str, Figure] = {}
        self._written = 0
        self._jobs: dict[str, list[Job]] = {}

    @classmethod
    @contextmanager
    def serving(cls, small: Sized, large: Sized, caller: Generator, calls: int) -> Iterator[Self]:
        """Serve both databases for as long as the block lasts."""
        with serving_on(small.database) as few, serving_on(large.database) as many:
            yield cls([(small, few), (large, many)], caller, calls)

    @property
    def figures(self) -> list[Figure]:
        return list(self._figures.values())

    @property
    def notes(self) -> list[str]:
        note = (
            f"{self._name}: {self._written:,} writes were acknowledged by each server, and its "
            "feed advanced by one for each."
        )
        return [note]

    def prepare(self) -> None:
        for call in CALLS:
            self._alternate(call, WARM_UP_CALLS)

    def measure_round(self) -> None:
        for call in CALLS:
            small, large = self._alternate(call, self._calls)
            self._add(call.title, "ms", large * 1e3, small * 1e3, call.bar)
        (small, _), (large, _) = (time_look(subject) for _, subject in self._sides)
        self._add("the reaper's query", "µs", large, small)

    def _alternate(self, call: Call, calls: int) -> list[float]:
        """Make a call's share of so many on each server; return each one's median in seconds."""
        calls = max(1, round(calls * call.share))
        if call.jobs != "created":
            self._jobs = {
                subject.target: [sized.pick(call.jobs) for _ in range(calls)]
                for sized, subject in self._sides
            }
        before = self._places()
        reply = self._caller.do("alternate", jobs=self._jobs, operation=call.operation)
        if call.writes:
            self._written += calls
            before = [place + calls for place in before]
        if self._places() != before:
            raise BenchmarkError(
                f"{self._name}: after {calls} calls of {call.title} on each server the feeds are "
                f"at {self._places()}, not at {before}"
            )
        return [statistics.median(seconds) for seconds in reply["seconds"].values()]

    def _places(self) -> list[int]:
        return [subject.feed_seq() for _, subject in self._sides]

    def _add(
        self, title: str, unit: str, large: float, small: float, bar: float | None = None
    ) -> None:
        name = f"{title}, {self._name}"
        self._figures.setdefault(name, Figure(name, unit, bar=bar)).add(large, small)
