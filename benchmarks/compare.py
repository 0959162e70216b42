"""Compares two revisions: says whether the change between them cost anything.

Servers of both run side by side, on databases of their own, and are given the same work in
turn. Each round starts new servers: by where it happens to lie in memory, one process of the same
code is a few percent slower than another for as long as it lives. So a round gives one ratio of
each number. The load is each revision's own, for the messages may differ: where what is asked has
changed too, so have the figures.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks import postgres
from benchmarks.away import away
from benchmarks.counting import count
from benchmarks.load import BATCH
from benchmarks.measure import (
    GENERATORS,
    Usage,
    Work,
    add_usage,
    batches,
    in_order,
    lifecycles,
    measure,
    together,
    unary_calls,
    updates,
)
from benchmarks.processes import ROOT, BenchmarkError, Generator, all_do, cpu_seconds
from benchmarks.scenarios.watch import Fanout, watch_jobs_bytes
from benchmarks.stats import Kind, Report
from benchmarks.targets import DATABASES, Database, Server, new_database

ROUNDS = 10
COUNTED_ROUNDS = 5
"""Counts hardly vary: fewer rounds are enough for them."""

SLICES = 2
"""Of each kind of work in a round, A B B A: what drifts meets both."""

SLICE_SECONDS = 0.2
WARM_UP_SECONDS = 0.15
JOBS = 200
"""That each generator reports on and reads."""

WORKS = (
    *unary_calls(64),
    Work.calls("CreateJob by one caller", "create", 1),
    Work.calls("UpdateProgress by one caller", "progress", 1),
    batches(4),
    updates(4, 250),
    lifecycles(80, title="lifecycle by unary calls", unary=True),
    lifecycles(80, title="lifecycle without an asset", asset=False),
    lifecycles(40, 4, title="lifecycle, 4 at once", one_watch=True),
)
"""What servers of both understand: see `counting.ALONE`."""

CLAIMED = 1600
"""Jobs of a slice of claims."""

CLAIMS = tuple(
    Work.alone(f"ClaimJobs of {most} jobs", f"claim_{most}", CLAIMED // most, unit="job")
    for most in (32, 100)
)
"""100 is the most."""

BACKLOG = Work.alone("", "create_batch", -(-len(CLAIMS) * (2 * SLICES + 1) * CLAIMED // BATCH))
"""What they claim, to warm up and in all slices of a server, all of one tenant."""

WATCHES = 1_000
FEED_WATCHES = 200
CHANGES = 8

CACHE = ROOT / ".venv/revisions"
"""Trees of other commits stay here, each with an environment of its own."""

STEADY = {"autovacuum": "off", "checkpoint_timeout": "1h", "max_wal_size": "16GB"}
"""Settings of PostgreSQL: no work of its own that would fall on one side by chance."""


@dataclass(frozen=True)
class Revision:
    """A revision that can be served: its commit, and the tree with its environment."""

    commit: str
    tree: Path

    @property
    def programs(self) -> Path:
        return self.tree / ".venv/bin"

    def generator(self) -> Generator:
        """Return a generator of its load."""
        command = [str(self.programs / "python"), "-m", "benchmarks.load"]
        return Generator(command, tree=self.tree)


def check_out(name: str) -> Revision:
    """Have a revision with an environment of its own. Raises BenchmarkError.

    Args:
        name: anything that git takes for a commit, or `.`, the working tree as it is.
    """
    commit = _run("git", "rev-parse", "--short", "HEAD" if name == "." else f"{name}^{{commit}}")
    if name == ".":
        return Revision(f"{commit} and what was changed since", ROOT)
    tree = CACHE / commit
    if not (tree / ".venv/bin/jobledger-server").exists():
        print(f"compare: make setup of {name}", file=sys.stderr, flush=True)
        tree.mkdir(parents=True, exist_ok=True)
        archive = str(CACHE / f"{commit}.tar")
        _run("git", "archive", "--output", archive, commit)
        _run("tar", "--extract", "--file", archive, "--directory", str(tree))
        _run("make", "--directory", str(tree), "setup")
    return Revision(commit, tree)


def _run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(f"`{' '.join(command)}` failed:\n{done.stderr}")
    return done.stdout.strip()


class Comparing:
    """Measures both revisions, round by round."""

    def __init__(
        self,
        revisions: Sequence[Revision],
        databases: Sequence[str],
        stack: ExitStack,
        milliseconds: float,
    ) -> None:
        self.report = Report(comparing=True)
        self._revisions = revisions
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self._cluster = None
        if "PostgreSQL" in databases:
            self._cluster = stack.enter_context(postgres.cluster(**STEADY))
            if milliseconds:
                far = away(self._cluster, milliseconds, self._folder)
                self._cluster = stack.enter_context(far)
        self._generators = {
            revision: [stack.enter_context(revision.generator()) for _ in range(GENERATORS)]
            for revision in revisions
        }

    def count_round(self, name: str) -> None:
        """Count what servers of both ask of their databases."""
        first, second = (self._count(name, revision) for revision in self._revisions)
        for (kind, title, unit), value in second.items():
            beside = first[kind, title, unit]
            self.report.add(kind, f"{title} alone, {name}", unit, value, beside)

    def measure_round(self, name: str, turn: int) -> None:
        """Start servers of both, and have them do everything. Odd turns begin with the second."""
        with ExitStack() as stack:
            servers, starts, used = {}, [], []
            for revision in in_order(self._revisions, turn):
                database = stack.enter_context(self._new_database(name, revision))
                server = Server(database, command=[str(revision.programs / "jobledger-server")])
                stack.callback(server.kill)
                starts.append(server.start())
                used.append(cpu_seconds(server.pid))
                servers[server] = self._generators[revision]
            self._add(Kind.TIME, f"start to SERVING, {name}", "s", starts, turn)
            self._add(Kind.SERVER_CPU, f"start to SERVING, {name}", "s", used, turn)
            self._add_watches(name, servers, turn)
            for server, generators in servers.items():
                all_do(generators, "calls.prepare", target=server.target, jobs=JOBS)
                measure(server, generators[:1], BACKLOG)
            for work in (*WORKS, *CLAIMS):
                for server, generators in servers.items():
                    measure(server, generators, work, WARM_UP_SECONDS)
                slices: dict[Server, list[Usage]] = {server: [] for server in servers}
                for server in SLICES * (*servers, *reversed(servers)):
                    usage = measure(server, servers[server], work, SLICE_SECONDS)
                    slices[server].append(usage)
                first, second = in_order([together(usages) for usages in slices.values()], turn)
                add_usage(self.report, f"{work.title}, {name}", work, second, first)
            for server, generators in servers.items():
                all_do(generators, "calls.check", target=server.target)

    def _new_database(self, name: str, revision: Revision) -> AbstractContextManager[Database]:
        return new_database(name, self._folder, self._cluster, revision.programs)

    def _add(self, kind: Kind, name: str, unit: str, values: Sequence[float], turn: int) -> None:
        first, second = in_order(values, turn)
        self.report.add(kind, name, unit, second, first)

    def _add_watches(
        self, name: str, servers: Mapping[Server, Sequence[Generator]], turn: int
    ) -> None:
        """Open streams while a server's memory is still as small as at its start."""
        one, many, cpu = [], [], []
        for server, generators in servers.items():
            fanout = Fanout(server, generators, WATCHES)
            one.append(fanout.bytes_each)
            many.append(watch_jobs_bytes(server, generators[0], FEED_WATCHES))
            changes = [fanout.change() for _ in range(CHANGES)]
            cpu.append(statistics.mean(used for *_, used in changes) * 1e6)
            fanout.close()
        self._add(Kind.MEMORY, f"an idle WatchJob, {name}", "bytes", one, turn)
        self._add(Kind.MEMORY, f"an idle WatchJobs, {name}", "bytes", many, turn)
        self._add(Kind.SERVER_CPU, f"WatchJob, {name}", "µs/delivery", cpu, turn)

    def _count(self, name: str, revision: Revision) -> dict[tuple[Kind, str, str], float]:
        with self._new_database(name, revision) as database:
            return count(database, self._generators[revision], revision.programs)


def compare(
    revisions: Sequence[Revision],
    databases: Sequence[str],
    rounds: int,
    *,
    milliseconds: float = 0.0,
) -> Report:
    """Measure both, with PostgreSQL so far away. Raises BenchmarkError."""
    begin = time.monotonic()
    with ExitStack() as stack:
        comparing = Comparing(revisions, databases, stack, milliseconds)
        for turn in range(rounds):
            left = (time.monotonic() - begin) / turn * (rounds - turn) if turn else 0.0
            after = f", {left:.0f} s left" if turn else ""
            print(f"compare: round {turn + 1} of {rounds}{after}", file=sys.stderr, flush=True)
            for name in databases:
                if turn < COUNTED_ROUNDS:
                    comparing.count_round(name)
                comparing.measure_round(name, turn)
    comparing.report.note(f"{rounds} rounds in {time.monotonic() - begin:.0f} s")
    return comparing.report


def summary(report: Report) -> list[str]:
    """Say which numbers differ, and how small a difference could be seen in the others."""
    figures = report.figures
    different = [figure for figure in figures if figure.differs]
    lines = [
        f"{figure.verdict}: {figure.kind.title}, {figure.name}, {figure.ratio - 1:+.1%} "
        f"({figure.interval[0] - 1:+.1%} to {figure.interval[1] - 1:+.1%})"
        for figure in different
        if figure.ratio is not None
    ] or ["no difference seen in any figure"]
    same = [f for f in figures if f.kind is Kind.SERVER_CPU and not f.differs]
    if same:
        reach = [max(f.interval[1], 1 / f.interval[0]) - 1 for f in same]
        lines.append(
            f"Of {len(figures)} figures {len(different)} differ. Server CPU that does not: "
            f"intervals reach {statistics.median(reach):.1%} from equal in the median, "
            f"{max(reach):.1%} at most."
        )
    return lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", metavar="REV_A", help="a commit, or `.`: the working tree")
    parser.add_argument("second", metavar="REV_B", help="another one, or the same")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default: {ROUNDS}")
    parser.add_argument("--database", nargs="+", choices=DATABASES, default=DATABASES)
    parser.add_argument(
        "--away",
        type=float,
        default=0.0,
        metavar="MS",
        help="milliseconds from a server to PostgreSQL, as on another machine; default: 0",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every round there too")


def run(arguments: argparse.Namespace) -> int:
    """Compare, print the table and what it says. Raises BenchmarkError."""
    revisions = [check_out(name) for name in (arguments.first, arguments.second)]
    report = compare(revisions, arguments.database, arguments.rounds, milliseconds=arguments.away)
    first, second = (revision.commit for revision in revisions)
    report.note(f"first: {arguments.first} ({first}), second: {arguments.second} ({second})")
    for line in summary(report):
        report.note(line)
    report.publish(arguments.json)
    return 0
