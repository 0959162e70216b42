"""Compares two revisions: says whether the change between them cost anything.

Servers of both run side by side, on databases of their own, and are given the same work in
turn. Each round starts new servers: by where it happens to lie in memory, one process of the same
code is a few percent slower than another for as long as it lives. So a round gives one ratio of
each figure. The load always comes from this tree, whatever the revisions are.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from benchmarks.counted import Counter, counted_server
from benchmarks.differences import Differences, Kind, Verdict
from benchmarks.load.messages import BATCH, USER
from benchmarks.postgres import Cluster
from benchmarks.processes import Generator, cpu_seconds, resident_bytes
from benchmarks.revisions import Revision, check_out
from benchmarks.sides import WORKS, Loads, Side, Usage, Work
from benchmarks.stats import describe_machine
from benchmarks.targets import DATABASES, Database, Server, new_database

T = TypeVar("T")

ROUNDS = 10
COUNTED_ROUNDS = 5
"""Counts hardly vary: so many are enough for them."""

SLICE_SECONDS = 0.4
WARM_UP_SECONDS = 0.15
ALONE_CALLS = 100

WATCHERS = 1_000
FEED_WATCHERS = 200
CHANGES = 8
PATIENCE_SECONDS = 30.0

COUNTED_CALLS = 100
COUNTED_BATCHES = 4
COUNTED_LIVES = 20


STEADY = {"autovacuum": "off", "checkpoint_timeout": "1h", "max_wal_size": "16GB"}
"""Settings of PostgreSQL: no work of its own that would fall on one side by chance."""


class Comparing:
    """Measures both revisions, round by round."""

    def __init__(
        self, revisions: tuple[Revision, Revision], databases: Sequence[str], stack: ExitStack
    ) -> None:
        self.differences = Differences()
        self._revisions = revisions
        self._databases = databases
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self._cluster = stack.enter_context(Cluster(**STEADY))
        self._loads = Loads(stack)
        loads = self._loads
        self._counted: dict[tuple[str, str], Work] = {
            ("CreateJob", "call"): loads.one_by_one("create", COUNTED_CALLS),
            ("UpdateProgress", "call"): loads.one_by_one("progress", COUNTED_CALLS),
            ("GetJob", "call"): loads.one_by_one("get", COUNTED_CALLS, 0),
            ("BatchCreateJobs", "batch"): loads.one_by_one("batch", COUNTED_BATCHES, BATCH),
            ("ReportProgress", "report"): loads.reports(1, 1),
            ("lifecycle", "lifecycle"): loads.lives(COUNTED_LIVES, 1),
        }

    def measure_round(self, turn: int) -> None:
        """Start servers of both, and have them do everything. Odd turns begin with the second."""
        for database in self._databases:
            with ExitStack() as stack:
                servers = []
                for revision in _in_order(self._revisions, turn):
                    server = Server(
                        stack.enter_context(self._new_database(database, revision)),
                        programs=revision.programs,
                    )
                    stack.callback(server.kill)
                    servers.append((server, server.start()))
                first, second = _in_order(servers, turn)
                self._add_starts(database, first, second)
                self._add_watchers(database, (first[0], second[0]), turn)
                for server, _ in servers:
                    self._loads.prepare(server)
                self._add_work(database, Side(first[0]), Side(second[0]), turn)

    def count_round(self) -> None:
        """Count what servers of both ask of their databases."""
        for database in self._databases:
            counted = [self._count(database, revision) for revision in self._revisions]
            for name, first in counted[0].items():
                second = counted[1][name]
                for (kind, unit), value in first.items():
                    title = f"{name}, {database}"
                    self.differences.add(kind, title, unit, (value, second[kind, unit]))

    @contextmanager
    def _new_database(self, name: str, revision: Revision) -> Iterator[Database]:
        with new_database(
            name, self._folder, cluster=self._cluster, programs=revision.programs
        ) as database:
            yield database

    def _add(self, kind: Kind, name: str, unit: str, first: float, second: float) -> None:
        self.differences.add(kind, name, unit, (first, second))

    def _add_starts(
        self, database: str, first: tuple[Server, float], second: tuple[Server, float]
    ) -> None:
        name = f"start to SERVING, {database}"
        self._add(Kind.DURATION, name, "s", first[1], second[1])
        used = [cpu_seconds(server.pid) for server, _ in (first, second)]
        self._add(Kind.SERVER_CPU, name, "s", used[0], used[1])

    def _add_watchers(self, database: str, servers: Sequence[Server], turn: int) -> None:
        """Open streams while a server's memory is still as small as at its start."""
        found = {server: self._watch(server) for server in _in_order(servers, turn)}
        first, second = (found[server] for server in servers)
        for kind, name, unit in (
            (Kind.MEMORY, "an idle WatchJob", "bytes"),
            (Kind.MEMORY, "an idle WatchJobs", "bytes"),
            (Kind.SERVER_CPU, "WatchJob", "µs/delivery"),
        ):
            self.differences.add(kind, f"{name}, {database}", unit, (first[name], second[name]))

    def _watch(self, server: Server) -> dict[str, float]:
        found = {}
        with Generator("load.watches") as watcher, Generator("load.calls") as caller:
            caller.do("latencies", target=server.target, operation="create", calls=ALONE_CALLS)
            (job_id,) = caller.do("prepare", target=server.target, jobs=1)["jobs"]
            of_job = {"name": "job", "target": server.target, "job_ids": [job_id]}
            of_owner = {"name": "owner", "target": server.target, "user_id": USER}
            for name, command, streams, which in (
                ("an idle WatchJob", "watch_job", WATCHERS, of_job),
                ("an idle WatchJobs", "watch_jobs", FEED_WATCHERS, of_owner),
            ):
                before = resident_bytes(server.pid)
                watcher.do(command, streams=streams, **which)
                found[name] = (resident_bytes(server.pid) - before) / streams
            watcher.do("close", name="owner")
            for number in range(1 + CHANGES):
                if number == 1:  # with the first change every stream does some things once
                    before_changes = cpu_seconds(server.pid)
                caller.do("latencies", target=server.target, operation="progress", calls=1)
                watcher.do("collect", name="job", changes=WATCHERS, patience=PATIENCE_SECONDS)
            used = cpu_seconds(server.pid) - before_changes
            found["WatchJob"] = used / CHANGES / WATCHERS * 1e6
        return found

    def _add_work(self, database: str, first: Side, second: Side, turn: int) -> None:
        for title, unit in WORKS.items():
            work = self._loads.work(title)
            usage = {first: Usage(), second: Usage()}
            sides = _in_order((first, second), turn)
            for side in sides:
                side.use(work, WARM_UP_SECONDS)
            for side in (*sides, *reversed(sides)):
                usage[side].add(side.use(work, SLICE_SECONDS))
            self._add_usage(f"{title}, {database}", unit, usage[first], usage[second])
        for side in (first, second):
            side.check()
            self._loads.check(side.server)
        alone: dict[Side, list[float]] = {first: [], second: []}
        for side in (*sides, *reversed(sides)):
            alone[side] += self._loads.seconds_alone(side.server, "create", ALONE_CALLS // 2)
        p50 = [statistics.median(alone[side]) * 1e3 for side in (first, second)]
        self._add(Kind.DURATION, f"CreateJob, one caller, p50, {database}", "ms", *p50)

    def _add_usage(self, name: str, unit: str, first: Usage, second: Usage) -> None:
        both = (first, second)
        server = [usage.server / usage.done * 1e6 for usage in both]
        self._add(Kind.SERVER_CPU, name, f"µs/{unit}", *server)
        if first.database:
            database = [usage.database / usage.done * 1e6 for usage in both]
            self._add(Kind.DATABASE_CPU, name, f"µs/{unit}", *database)
        self._add(Kind.RATE, name, f"{unit}s/s", *(usage.done / usage.wall for usage in both))

    def _count(self, database: str, revision: Revision) -> dict[str, dict[tuple[Kind, str], float]]:
        found = {}
        with (
            self._new_database(database, revision) as made,
            counted_server(made, self._cluster, revision.programs) as counter,
        ):
            self._loads.prepare(counter.server)
            for (title, unit), work in self._counted.items():
                found[title] = _counted(counter, work, unit)
        return found


def _counted(counter: Counter, work: Work, unit: str) -> dict[tuple[Kind, str], float]:
    before = counter.read()
    done, changes = work(counter.server, SLICE_SECONDS)
    after = counter.read()
    found = {(Kind.STATEMENTS, f"1/{unit}"): (after.statements - before.statements) / done}
    if after.round_trips is not None and before.round_trips is not None:
        trips = (after.round_trips - before.round_trips) / done
        found[Kind.ROUND_TRIPS, f"1/{unit}"] = trips
    if changes:
        found[Kind.WAL, "bytes/change"] = (after.wal - before.wal) / changes
    return found


def _in_order(both: Sequence[T], turn: int) -> Sequence[T]:
    return both[::-1] if turn % 2 else both


def compare(
    revisions: tuple[Revision, Revision], databases: Sequence[str], rounds: int
) -> Differences:
    """Measure both. Raises BenchmarkError."""
    with ExitStack() as stack:
        comparing = Comparing(revisions, databases, stack)
        for number in range(1, min(rounds, COUNTED_ROUNDS) + 1):
            _tell(f"counting: round {number} of {min(rounds, COUNTED_ROUNDS)}")
            comparing.count_round()
        begin = time.monotonic()
        for turn in range(rounds):
            left = (time.monotonic() - begin) / turn * (rounds - turn) if turn else 0.0
            _tell(f"round {turn + 1} of {rounds}" + (f", {left:.0f} s left" if turn else ""))
            comparing.measure_round(turn)
    return comparing.differences


def _tell(what: str) -> None:
    print(f"compare: {what}", file=sys.stderr, flush=True)


def table(differences: Differences) -> str:
    """Draw every figure: medians, the median of the ratios with its interval, and the word."""
    rows: list[tuple[str, ...]] = [("", "", "first", "second", "ratio", "interval", "")]
    kind = None
    for figure in differences:
        if figure.kind is not kind:
            kind = figure.kind
            rows.append((kind.title, *[""] * 6))
        spread = figure.spread
        first, second = (statistics.median(values) for values in zip(*figure.pairs, strict=True))
        rows.append(
            (
                f"  {figure.name}",
                figure.unit,
                f"{first:.4g}",
                f"{second:.4g}",
                f"{spread.ratio:.3f}",
                f"{spread.low:.3f} to {spread.high:.3f}",
                figure.word.upper() if figure.differs else figure.word,
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, unit, *numbers, word in rows:
        cells = [name.ljust(widths[0]), unit.ljust(widths[1])]
        cells += [cell.rjust(width) for cell, width in zip(numbers, widths[2:-1], strict=True)]
        lines.append("  ".join([*cells, word]).rstrip())
    return "\n".join(lines)


def summary(differences: Differences) -> str:
    """Say which figures differ, and how far the others could be told apart."""
    figures = list(differences)
    different = [figure for figure in figures if figure.differs]
    cpu = [f for f in figures if f.kind is Kind.SERVER_CPU and f.verdict is Verdict.SAME]
    lines = [
        f"{figure.word}: {figure.kind.title}, {figure.name}, {figure.spread.ratio - 1:+.1%} "
        f"({figure.spread.low - 1:+.1%} to {figure.spread.high - 1:+.1%})"
        for figure in different
    ] or ["no difference seen in any figure"]
    if cpu:
        widest = max(max(f.spread.high, 1 / f.spread.low) for f in cpu)
        middle = statistics.median(max(f.spread.high, 1 / f.spread.low) for f in cpu)
        lines.append(
            f"Of {len(figures)} figures {len(different)} differ. Server CPU that does not: "
            f"intervals reach {middle - 1:.1%} from equal in the median, {widest - 1:.1%} at most."
        )
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", metavar="REV_A", help="a commit, or `.`: the working tree")
    parser.add_argument("second", metavar="REV_B", help="another one, or the same")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default: {ROUNDS}")
    parser.add_argument("--database", nargs="+", choices=DATABASES, default=DATABASES)
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every round there too")


def run(arguments: argparse.Namespace) -> int:
    """Compare, print the table and what it says. Raises BenchmarkError."""
    begin = time.monotonic()
    revisions = check_out(arguments.first), check_out(arguments.second)
    differences = compare(revisions, arguments.database, arguments.rounds)
    print(", ".join(f"{name} {value}" for name, value in describe_machine().items()))
    for place, revision in zip(("first", "second"), revisions, strict=True):
        print(f"{place}: {revision.name} ({revision.commit})")
    print(f"{arguments.rounds} rounds in {time.monotonic() - begin:.0f} s\n")
    print(table(differences))
    print(f"\n{summary(differences)}")
    if arguments.json:
        figures = [
            {
                "kind": f.kind.title,
                "name": f.name,
                "unit": f.unit,
                "word": f.word,
                "rounds": f.pairs,
            }
            for f in differences
        ]
        whole = {"machine": describe_machine(), "revisions": [str(r.commit) for r in revisions]}
        arguments.json.write_text(json.dumps(whole | {"figures": figures}, indent=2) + "\n")
    return 0
