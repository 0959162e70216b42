"""Many callers at once: how many calls a second, and the processor time that each costs."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import h2load
from benchmarks.comparisons import Comparisons
from benchmarks.gauge import WARM_UP_SECONDS, Gauge, Reading, Server
from benchmarks.messages import create_bodies
from benchmarks.processes import BareServer, BenchmarkError, Generator, all_do
from benchmarks.report import Figure
from benchmarks.subjects import Subject

IN_FLIGHT = 128
JOBS = 1_000

NEAR_LIMIT = 0.9
"""Cores: one interpreter can hardly use more than one."""

OPERATIONS = {"create": "CreateJob", "progress": "UpdateProgress", "get": "GetJob"}
WRITES = ("create", "progress")

SET_UP = "no-op, gRPC set up as in the server"

BARS: Mapping[tuple[str, str], float] = {
    ("create", "SQLite"): 0.80,
    ("create", "PostgreSQL"): 0.85,
    ("progress", "SQLite"): 0.80,
    ("progress", "PostgreSQL"): 0.85,
    ("get", "SQLite"): 0.85,
    ("get", "PostgreSQL"): 0.85,
}


class Rates:
    """Measures each operation on each database, between two measurements of the no-op.

    set_up: does nothing either, with gRPC set up as the real server sets it up; compared with
        the no-op too, if there is one.
    """

    def __init__(
        self,
        bare: BareServer,
        subjects: Sequence[Subject],
        generators: Sequence[Generator],
        folder: Path,
        *,
        seconds: float,
        set_up: BareServer | None = None,
    ) -> None:
        self._bare = bare
        self._set_up = set_up
        self._subjects = subjects
        self._generators = generators
        self._folder = folder
        self._seconds = seconds
        self._gauge = Gauge(generators, seconds=seconds)
        self._comparisons = Comparisons()
        self._no_ops: list[Reading] = []
        self._by_h2load: list[float] = []
        self._written = 0

    @property
    def figures(self) -> list[Figure]:
        return self._comparisons.figures

    @property
    def notes(self) -> list[str]:
        durable = (
            f"All {self._written:,} acknowledged writes were found in the feed of the database, "
            "and after each round every job was as its last answer had said."
        )
        return [self._limit(), self._other_generator(), durable]

    def _limit(self) -> str:
        server = statistics.median(no_op.server_cores for no_op in self._no_ops)
        generator = statistics.median(no_op.generator_cores for no_op in self._no_ops)
        cost = statistics.median(no_op.generator_cpu for no_op in self._no_ops)
        if generator > NEAR_LIMIT:
            limit = "the generators are near their limit, the ceiling may be higher than shown"
        elif server > NEAR_LIMIT:
            limit = "the server is the limit"
        else:
            limit = "neither is at its limit, the machine was busy with something else"
        return (
            f"The load came from {len(self._generators)} processes of our own, "
            f"{cost:.0f} µs of processor time a no-op. With it the server used {server:.2f} "
            f"cores, each generator {generator:.2f}: {limit}."
        )

    def _other_generator(self) -> str:
        if not self._by_h2load:
            return "h2load is not installed: nothing to compare the generators with."
        ours = statistics.median(no_op.rate for no_op in self._no_ops)
        theirs = statistics.median(self._by_h2load)
        return f"By h2load the no-op reaches {theirs:,.0f} calls/s; by our generators {ours:,.0f}."

    def prepare(self) -> None:
        """Make the jobs that are reported on and read, and warm every server up."""
        share = JOBS // len(self._generators)
        for subject in self._subjects:
            all_do(self._generators, "prepare", target=subject.target, jobs=share)
        bare = [self._bare] if self._set_up is None else [self._bare, self._set_up]
        servers: tuple[Server, ...] = (*bare, *self._subjects)
        for server in servers:
            self._gauge.warm_up(server, "create", in_flight=IN_FLIGHT)

    def measure_round(self) -> None:
        before = self._no_op()
        if self._set_up is not None:
            set_up = self._gauge.rate(self._set_up, "create", in_flight=IN_FLIGHT)
            after = self._no_op()
            self._comparisons.add(SET_UP, "call", set_up, (before, after), bar=None)
            before = after
        for operation, name in OPERATIONS.items():
            for subject in self._subjects:
                seq = subject.feed_seq()
                ours = self._gauge.rate(subject, operation, in_flight=IN_FLIGHT)
                if operation in WRITES:
                    self._check(subject, operation, ours.calls, subject.feed_seq() - seq)
                after = self._no_op()
                self._comparisons.add(
                    f"{name}, {subject.database}",
                    "call",
                    ours,
                    (before, after),
                    bar=BARS.get((operation, subject.database)),
                )
                before = after
        if h2load.is_installed():
            self._by_h2load.append(self._no_op_by_h2load())

    def _no_op(self) -> Reading:
        no_op = self._gauge.rate(self._bare, "create", in_flight=IN_FLIGHT)
        self._no_ops.append(no_op)
        return no_op

    def _no_op_by_h2load(self) -> float:
        return h2load.call_rate(
            self._bare.target,
            "/jobledger.v1.JobService/CreateJob",
            next(create_bodies()),
            self._folder,
            in_flight=IN_FLIGHT,
            warm_up=WARM_UP_SECONDS,
            seconds=self._seconds,
        )

    def _check(self, subject: Subject, operation: str, acknowledged: int, committed: int) -> None:
        """Find every acknowledged write in the feed, and every job as its last answer said."""
        if acknowledged != committed:
            raise BenchmarkError(
                f"{OPERATIONS[operation]} on {subject.database}: {acknowledged} calls were "
                f"acknowledged, {committed} changes are in the feed"
            )
        all_do(self._generators, "check", target=subject.target)
        self._written += acknowledged
