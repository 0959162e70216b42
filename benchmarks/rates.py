"""Many callers at once: how many calls a second, and the processor time that each costs."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from processes import BareServer, BenchmarkError, Generator, all_do, cpu_seconds
from report import Figure
from subjects import Subject

IN_FLIGHT = 128
JOBS = 1_000
WARM_UP_SECONDS = 0.25

NEAR_LIMIT = 0.9
"""Cores: one interpreter can hardly use more than one."""

OPERATIONS = {"create": "CreateJob", "progress": "UpdateProgress", "get": "GetJob"}
WRITES = ("create", "progress")


@dataclass(frozen=True)
class Round:
    """What came of one operation for a while. Processor time is in microseconds a call."""

    rate: float
    calls: int
    server_cpu: float
    database_cpu: float
    server_cores: float
    generator_cores: float


class Rates:
    """Measures each operation on each database, between two measurements of the no-op."""

    def __init__(
        self,
        bare: BareServer,
        subjects: Sequence[Subject],
        generators: Sequence[Generator],
        *,
        seconds: float,
    ) -> None:
        self._bare = bare
        self._subjects = subjects
        self._generators = generators
        self._seconds = seconds
        self._figures: dict[str, Figure] = {}
        self._no_ops: list[Round] = []
        self._written = 0

    @property
    def figures(self) -> list[Figure]:
        return sorted(self._figures.values(), key=lambda figure: not figure.more_is_better)

    @property
    def notes(self) -> list[str]:
        server = statistics.median(r.server_cores for r in self._no_ops)
        generator = statistics.median(r.generator_cores for r in self._no_ops)
        if generator > NEAR_LIMIT:
            limit = "the generators are near their limit, the ceiling may be higher than shown"
        elif server > NEAR_LIMIT:
            limit = "the server is the limit"
        else:
            limit = "neither is at its limit, the machine was busy with something else"
        generators = len(self._generators)
        no_op = (
            f"No-op: the server used {server:.2f} cores, each of {generators} load generators "
            f"{generator:.2f}: {limit}."
        )
        durable = (
            f"All {self._written:,} acknowledged writes were found in the feed of the database, "
            "and after each round every job was as its last answer had said."
        )
        return [no_op, durable]

    def prepare(self) -> None:
        """Make the jobs that are reported on and read, and warm every server up."""
        share = JOBS // len(self._generators)
        for subject in self._subjects:
            all_do(self._generators, "prepare", target=subject.target, jobs=share)
        for target in (self._bare.target, *(subject.target for subject in self._subjects)):
            self._load(target, "create", WARM_UP_SECONDS)

    def measure_round(self) -> None:
        before = self._measure("create", self._bare.target, self._bare.pid)
        for operation, name in OPERATIONS.items():
            for subject in self._subjects:
                seq = subject.feed_seq()
                ours = self._measure(operation, subject.target, subject.pid, subject.database_pid)
                if operation in WRITES:
                    self._check(subject, name, ours.calls, subject.feed_seq() - seq)
                after = self._measure("create", self._bare.target, self._bare.pid)
                self._add(f"{name}, {subject.database}", ours, (before, after))
                before = after

    def _measure(
        self, operation: str, target: str, server: int, database: int | None = None
    ) -> Round:
        pids = [server, *(generator.pid for generator in self._generators)]
        pids += [] if database is None else [database]
        used = [cpu_seconds(pid) for pid in pids]
        begin = time.monotonic()
        replies = self._load(target, operation, self._seconds)
        wall = time.monotonic() - begin
        used = [cpu_seconds(pid) - before for pid, before in zip(pids, used, strict=True)]
        calls = sum(reply["calls"] for reply in replies)
        return Round(
            rate=sum(reply["rate"] for reply in replies),
            calls=calls,
            server_cpu=used[0] / calls * 1e6,
            database_cpu=0.0 if database is None else used[-1] / calls * 1e6,
            server_cores=used[0] / wall,
            generator_cores=max(used[1 : len(self._generators) + 1]) / wall,
        )

    def _load(self, target: str, operation: str, seconds: float) -> list[dict[str, Any]]:
        return all_do(
            self._generators,
            "rate",
            target=target,
            operation=operation,
            in_flight=IN_FLIGHT // len(self._generators),
            warm_up=WARM_UP_SECONDS,
            seconds=seconds,
        )

    def _check(self, subject: Subject, name: str, acknowledged: int, committed: int) -> None:
        """Find every acknowledged write in the feed, and every job as its last answer said."""
        if acknowledged != committed:
            raise BenchmarkError(
                f"{name} on {subject.database}: {acknowledged} calls were acknowledged, "
                f"{committed} changes are in the feed"
            )
        share = JOBS // len(self._generators)
        all_do(self._generators, "check", target=subject.target, jobs=share)
        self._written += acknowledged

    def _add(self, title: str, ours: Round, no_ops: tuple[Round, Round]) -> None:
        self._no_ops += no_ops
        rate = statistics.mean(no_op.rate for no_op in no_ops)
        cpu = statistics.mean(no_op.server_cpu for no_op in no_ops)
        self._figure(title, "calls/s", more_is_better=True).add(ours.rate, rate)
        self._figure(f"{title}: server CPU", "µs/call").add(ours.server_cpu, cpu)
        if ours.database_cpu:
            self._figure(f"{title}: database CPU", "µs/call").add(ours.database_cpu, cpu)

    def _figure(self, title: str, unit: str, *, more_is_better: bool = False) -> Figure:
        return self._figures.setdefault(title, Figure(title, unit, more_is_better=more_is_better))
