"""Whole lifecycles on each database, with every update and with throttling, beside etcd's."""

import os
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.etcd_load import PUTS, VALUE
from benchmarks.etcd_server import EtcdServer
from benchmarks.lifecycle_load import IN_FLIGHT, PERCENTS
from benchmarks.lifecycle_runs import Run, live_jobs, live_keys
from benchmarks.processes import BareServer, BenchmarkError, Generator
from benchmarks.report import Figure, percentiles
from benchmarks.subjects import Subject

CPU, RATE, DELAY = "ms/lifecycle", "lifecycles/s", "ms"
UNITS = (CPU, RATE, DELAY)
"""In the order in which they are shown."""

MODES = {"every update": True, "throttled": False}

CHANGES = 4 + len(PERCENTS)
"""Of a job with every update: created, claimed, its reports, its asset, its end."""

WARM_UP = 2 * IN_FLIGHT + 2
"""Lifecycles on each side before the first round: everything is done for once."""


@dataclass(frozen=True)
class Servers:
    """Where lives are lived. etcd may be missing."""

    bare: BareServer
    subjects: Sequence[Subject]
    etcd: EtcdServer | None


class Lifecycles:
    """Lives through jobs on each subject in each mode, beside the same on the bare stack.

    First in each round come etcd's keys, which `putters` put.
    folder: for the pipe between owners and workers.
    """

    def __init__(
        self,
        servers: Servers,
        owners: Generator,
        workers: Generator,
        putters: Sequence[Generator],
        *,
        folder: Path,
        lifecycles: int,
    ) -> None:
        self._bare = servers.bare
        self._subjects = servers.subjects
        self._etcd = servers.etcd
        self._owners = owners
        self._workers = workers
        self._putters = putters
        self._pipe = folder / "sightings"
        self._lifecycles = lifecycles
        self._figures: dict[str, Figure] = {}
        self._runs: defaultdict[str, list[Run]] = defaultdict(list)

    @property
    def figures(self) -> list[Figure]:
        return sorted(self._figures.values(), key=lambda figure: UNITS.index(figure.unit))

    @property
    def notes(self) -> list[str]:
        notes = []
        for title, runs in self._runs.items():
            names = runs[0].cores
            used = (
                f"{name} {statistics.median(r.cores[name] for r in runs):.2f}" for name in names
            )
            total = sum(run.lifecycles for run in runs)
            changes = sum(run.changes for run in runs) / total
            notes.append(
                f"{title}: {total:,} lifecycles of {changes:.2f} changes; cores used: "
                f"{', '.join(used)}."
            )
        notes.append(
            "The ceiling of processor time is that of the bare stack: the same calls, streams and "
            "messages, with jobs in a dictionary and nothing behind them."
        )
        notes.append(
            "Every watcher was told that its job is COMPLETED, with every update also each of "
            f"{', '.join(map(str, PERCENTS))} %; and the feed of the database advanced by exactly "
            "the changes of these jobs."
        )
        if self._etcd is None:
            notes.append("etcd is not installed (Debian's etcd-server has it): left out.")
        else:
            notes.append(
                f"etcd {self._etcd.version}: {PUTS} puts of {len(VALUE)} bytes to a key, each "
                "waiting for the disk, and a watch of it; each watcher was told each put."
            )
        return notes

    def prepare(self) -> None:
        os.mkfifo(self._pipe)
        if self._etcd is not None:
            live_keys(self._etcd, self._putters, lifecycles=WARM_UP)
        for every_update in MODES.values():
            servers: tuple[Subject | BareServer, ...] = (self._bare, *self._subjects)
            for server in servers:
                self._live(server, WARM_UP, every_update=every_update)

    def measure_round(self) -> None:
        if self._etcd is not None:
            keys = live_keys(self._etcd, self._putters, lifecycles=self._lifecycles)
            self._add(f"etcd, {PUTS} puts", keys)
        for mode, every_update in MODES.items():
            bare = self._live(self._bare, self._lifecycles, every_update=every_update)
            ceiling = bare.cpu["server"]
            self._add(f"bare stack, {mode}", bare)
            for subject in self._subjects:
                run = self._live(subject, self._lifecycles, every_update=every_update)
                self._add(f"{subject.database}, {mode}", run, ceiling)

    def _live(self, server: Subject | BareServer, lifecycles: int, *, every_update: bool) -> Run:
        run = live_jobs(
            server,
            self._owners,
            self._workers,
            lifecycles=lifecycles,
            pipe=self._pipe if every_update else None,
        )
        if every_update and run.changes != lifecycles * CHANGES:
            raise BenchmarkError(
                f"{lifecycles} jobs have {run.changes} changes at {server.target}, "
                f"not {CHANGES} each"
            )
        return run

    def _add(self, title: str, run: Run, ceiling: float | None = None) -> None:
        self._runs[title].append(run)
        database = run.cpu.get("database")
        if database is None:
            self._figure(f"{title}: server CPU", CPU).add(run.cpu["server"], ceiling)
        else:
            both = run.cpu["server"] + database
            self._figure(f"{title}: server and database CPU", CPU).add(both, ceiling)
            self._figure(f"{title}: of it database CPU", CPU).add(database, ceiling)
        self._figure(title, RATE).add(run.rate)
        for name, value in zip(("p50", "p99"), percentiles(run.delays), strict=True):
            self._figure(f"{title}: last answer to watcher, {name}", DELAY).add(value)

    def _figure(self, title: str, unit: str) -> Figure:
        new = Figure(title, unit, more_is_better=unit == RATE)
        return self._figures.setdefault(title, new)
