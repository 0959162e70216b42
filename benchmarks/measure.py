"""What a server does in a slice of time, what that takes, and that all of it is committed."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from benchmarks.load import BATCH, IN_FLIGHT
from benchmarks.processes import BenchmarkError, Generator, all_do, cpu_seconds
from benchmarks.stats import Kind, Report
from benchmarks.targets import Database, Server

T = TypeVar("T")

GENERATORS = 2
"""Processes that make the load together, where one would be the limit itself."""


@dataclass(frozen=True)
class Work:
    """Something that a server is given to do by generators, which share it.

    Attributes:
        title: the name of its results.
        unit: what costs are given for, and what generators count as `done`.
        command: of a generator.
        changes: of the database for each unit, where replies do not say how many there were.
        shared: how many calls or streams there are at once, by the argument's name.
        options: the command's other arguments.
        timed: whether it goes on for as long as it is said; else until it is done.
        worker: where jobs are to be done by the last of the generators, how.
    """

    title: str
    unit: str
    command: str
    changes: int = 1
    shared: Mapping[str, int] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    timed: bool = True
    worker: Mapping[str, Any] | None = None

    @classmethod
    def calls(
        cls, title: str, operation: str, in_flight: int, unit: str = "call", changes: int = 1
    ) -> "Work":
        """Return work that keeps `in_flight` calls going."""
        return cls(
            title, unit, "calls.rate", changes, {"in_flight": in_flight}, {"operation": operation}
        )

    @classmethod
    def alone(
        cls, title: str, operation: str, calls: int, unit: str = "call", changes: int = 1
    ) -> "Work":
        """Return work that makes one call after the other."""
        options = {"operation": operation, "calls": calls}
        return cls(title, unit, "calls.alone", changes, options=options, timed=False)


def unary_calls(in_flight: int) -> list[Work]:
    return [
        Work.calls("CreateJob", "create", in_flight),
        Work.calls("UpdateProgress", "progress", in_flight),
        Work.calls("GetJob", "get", in_flight, changes=0),
    ]


def batches(in_flight: int) -> Work:
    return Work.calls(f"BatchCreateJobs of {BATCH}", "create_batch", in_flight, unit="job")


def updates(
    streams: int, window: int, title: str = "updates over Work", size: int | None = None
) -> Work:
    """Return reports or, of a size in bytes, appends: those change no job."""
    shared, options = {"streams": streams}, {"window": window}
    if size is not None:
        options["size"] = size
    return Work(title, "update", "calls.update", 0 if size else 1, shared, options)


def lifecycles(
    jobs: int,
    in_flight: int = IN_FLIGHT,
    *,
    title: str = "lifecycle",
    every_update: bool = True,
    one_watch: bool = False,
    unary: bool = False,
    asset: bool = True,
) -> Work:
    return Work(
        title,
        "lifecycle",
        "lives.live",
        options={"jobs": jobs, "in_flight": in_flight, "one_watch": one_watch},
        timed=False,
        worker={"every_update": every_update, "unary": unary, "asset": asset},
    )


@dataclass
class Usage:
    """What a server did, and what that took, in seconds of processor time."""

    done: int
    rate: float
    server: float
    database: float | None
    load: float
    """Of the generators."""

    load_cores: float
    """How many cores the generators used, in all."""

    replies: list[dict[str, Any]]

    worker: dict[str, Any] = field(default_factory=dict)
    """What the worker replied at the end, where there was one."""


def measure(
    server: Server, generators: Sequence[Generator], work: Work, seconds: float = 0.0
) -> Usage:
    """Have work done.

    Raises BenchmarkError unless what the server acknowledged is what its database has.
    """
    callers = generators[: min(work.shared.values(), default=1)]
    how: dict[str, Any] = dict(work.options)
    how |= {name: max(1, number // len(callers)) for name, number in work.shared.items()}
    if work.timed:
        how["seconds"] = seconds
    database = server.database
    pids = [server.pid, database.pid, *(generator.pid for generator in generators)]
    if work.worker is not None:
        generators[-1].do("lives.work", target=server.target, **work.worker)
    seq = database.feed_seq()
    before = [cpu_seconds(pid) for pid in pids]
    begin = time.monotonic()
    replies = all_do(callers, work.command, target=server.target, **how)
    wall = time.monotonic() - begin
    used = [cpu_seconds(pid) - begun for pid, begun in zip(pids, before, strict=True)]
    worker = {} if work.worker is None else generators[-1].do("lives.rest")
    done = sum(reply["done"] for reply in replies)
    if not done:
        raise BenchmarkError("no call was answered in time: give it more --seconds")
    check(database, seq, sum(r.get("changes", r["done"] * work.changes) for r in replies))
    return Usage(
        done=done,
        rate=sum(reply["done"] / reply["seconds"] for reply in replies),
        server=used[0],
        database=None if database.pid is None else used[1],
        load=sum(used[2:]),
        load_cores=sum(used[2:]) / wall,
        replies=replies,
        worker=worker,
    )


def together(usages: Sequence[Usage]) -> Usage:
    """Return what several slices of the same work took in all; of the rates the mean."""
    databases = [usage.database for usage in usages if usage.database is not None]
    return Usage(
        done=sum(usage.done for usage in usages),
        rate=sum(usage.rate for usage in usages) / len(usages),
        server=sum(usage.server for usage in usages),
        database=sum(databases) if databases else None,
        load=sum(usage.load for usage in usages),
        load_cores=max(usage.load_cores for usage in usages),
        replies=[reply for usage in usages for reply in usage.replies],
    )


def check(database: Database, before: int, acknowledged: int) -> None:
    """Raise BenchmarkError unless the feed has advanced by the acknowledged changes."""
    committed = database.feed_seq() - before
    if committed != acknowledged:
        raise BenchmarkError(
            f"{database.name}: {acknowledged} changes were acknowledged, {committed} are committed"
        )


def add_usage(
    report: Report, name: str, work: Work, usage: Usage, beside: Usage | None = None
) -> None:
    """Add a round: what the work took, and what it took `beside`, of another revision."""
    both = (usage,) if beside is None else (usage, beside)
    unit = f"µs/{work.unit}"
    report.add(Kind.SERVER_CPU, name, unit, *(one.server / one.done * 1e6 for one in both))
    if usage.database is not None:
        used = ((one.database or 0) / one.done * 1e6 for one in both)
        report.add(Kind.DATABASE_CPU, name, unit, *used)
    report.add(Kind.RATE, name, f"{work.unit}s/s", *(one.rate for one in both))


def in_order(targets: Sequence[T], turn: int) -> Sequence[T]:
    """Return what is measured in turn; in every second round it is the other way round."""
    return targets[::-1] if turn % 2 else targets
