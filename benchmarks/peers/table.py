"""The same lifecycle on what people use instead: BullMQ, Celery, a hand-made service."""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from benchmarks.peers.lifecycle import IN_FLIGHT, PERCENTS, Life
from benchmarks.peers.subjects import ROOT, SUBJECTS, Subject
from benchmarks.processes import BenchmarkError, cpu_seconds

WARM_UP = 10 * IN_FLIGHT
"""Lifecycles before those that are measured: connections are open, code is compiled."""

MINIMUM = 500
"""Lifecycles of a round: 64 at its begin and at its end are not in the rate."""


@dataclass(frozen=True)
class Measurement:
    """What so many lifecycles took on one peer. Processor times are ms for each lifecycle.

    Attributes:
        server_cpu: of the server and its database.
        database_cpu: of it the database's, where it is not the server itself.
        client_cpu: of the creator, the observer and the worker.
        rate: lifecycles a second.
        latency_p50: ms from the handler's return until the observer knew of the end.
        latency_p99: likewise.
        updates_seen: how many of a job's updates its observer saw, on average.
    """

    server_cpu: float
    database_cpu: float
    client_cpu: float
    rate: float
    latency_p50: float
    latency_p99: float
    updates_seen: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SUBJECTS))
    parser.add_argument("--lifecycles", type=int, default=2_000, help="in each round, 500 or more")
    parser.add_argument("--rounds", type=int, default=3, help="of all peers in turn")
    parser.add_argument("--json", type=Path, help="a file for the measurements of each round")


def run(arguments: argparse.Namespace) -> int:
    names = arguments.names or list(SUBJECTS)
    if unknown := set(names) - set(SUBJECTS):
        raise BenchmarkError(f"unknown: {', '.join(unknown)}; there are {', '.join(SUBJECTS)}")
    if arguments.lifecycles < MINIMUM:
        raise BenchmarkError(f"--lifecycles: at least {MINIMUM}")
    rounds: dict[str, list[Measurement]] = {name: [] for name in names}
    for _ in range(arguments.rounds):
        for name in names:
            rounds[name].append(measure(name, arguments.lifecycles))
    print(f"medians of {arguments.rounds} rounds of {arguments.lifecycles:,} lifecycles,")
    print(f"{IN_FLIGHT} at once; processor time in ms for each lifecycle, latency in ms\n")
    print(table(rounds))
    if arguments.json:
        content = {name: [asdict(one) for one in measured] for name, measured in rounds.items()}
        arguments.json.write_text(json.dumps(content, indent=1))
    return 0


def measure(name: str, lifecycles: int) -> Measurement:
    """Start a peer, live the lifecycles on it and end it. Raises BenchmarkError."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        subject = stack.enter_context(SUBJECTS[name](folder))
        worker, owners = (
            stack.enter_context(_Client(command, subject))
            for command in (subject.worker, subject.owners)
        )
        owners.live(WARM_UP)
        clients = (owners.pid, worker.pid)
        before = _cpu(subject.server), _cpu(subject.database), sum(map(cpu_seconds, clients))
        lives = owners.live(lifecycles)
        after = _cpu(subject.server), _cpu(subject.database), sum(map(cpu_seconds, clients))
    server, database, client = (
        (end - begin) / lifecycles * 1000 for begin, end in zip(before, after, strict=True)
    )
    if len(lives) != lifecycles:
        raise BenchmarkError(f"{len(lives)} of {lifecycles} jobs were observed to their end")
    # The first and the last ones had fewer others at the same time.
    ends = sorted(observed for _, observed, _ in lives)[IN_FLIGHT:-IN_FLIGHT]
    delays = sorted((observed - completed) * 1000 for completed, observed, _ in lives)
    return Measurement(
        server_cpu=server + database,
        database_cpu=database,
        client_cpu=client,
        rate=(len(ends) - 1) / (ends[-1] - ends[0]),
        latency_p50=delays[len(delays) // 2],
        latency_p99=delays[len(delays) * 99 // 100],
        updates_seen=statistics.mean(seen for _, _, seen in lives),
    )


def table(rounds: dict[str, list[Measurement]]) -> str:
    """Return a table in Markdown of the medians of each peer's rounds."""
    titles = ("", "server and database", "of it database", "clients", "lifecycles/s", "p50", "p99")
    lines = [
        f"| {' | '.join(titles)} | updates seen of {len(PERCENTS)} |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    formats = ("{:.2f}", "{:.2f}", "{:.2f}", "{:,.0f}", "{:.1f}", "{:.1f}", "{:.2f}")
    for name, measured in rounds.items():
        columns = zip(*(asdict(one).values() for one in measured), strict=True)
        cells = (
            text.format(statistics.median(values))
            for text, values in zip(formats, columns, strict=True)
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


class _Client:
    """A program of a subject's clients, for as long as a block lasts."""

    def __init__(self, command: Sequence[str], subject: Subject) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **subject.environment},
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def live(self, lifecycles: int) -> list[Life]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(lifecycles, file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise BenchmarkError(f"{self._process.args!r} ended with {self._process.wait()}")
        lives: list[Life] = json.loads(line)
        return lives

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()


def _cpu(pid: int | None) -> float:
    return 0.0 if pid is None else cpu_seconds(pid)
