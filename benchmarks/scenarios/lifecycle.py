"""Whole lives of jobs, created, claimed, reported on, completed and watched; and etcd's keys.

The handlers do nothing else. With every update each report is a change of its own, eight changes
in all, and waits until the job's watch has received the one before; throttled, the worker library
sends what it would send. Beside them are the same calls and messages on a bare server that
keeps its jobs in a dictionary, and, where etcd is installed, keys that are put eight times.
"""

import argparse
import os
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.etcd import EtcdServer, has_etcd, serving_etcd
from benchmarks.load.etcd import PUTS, VALUE
from benchmarks.load.lifecycle import IN_FLIGHT, PERCENTS
from benchmarks.processes import BareServer, BenchmarkError, all_do, cpu_seconds
from benchmarks.run import Run
from benchmarks.stats import percentiles
from benchmarks.targets import Server

MODES = {"every update": True, "throttled": False}

CHANGES = 4 + len(PERCENTS)
"""Of a job with every update: created, claimed, its reports, its asset, its end."""

WARM_UP = 2 * IN_FLIGHT + 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--lifecycles", type=int, default=1_000, metavar="N", help="a round; default: 1000"
    )


def measure(run: Run) -> None:
    """Let jobs live on each server in turn. Raises BenchmarkError where one did not as it must."""
    count = max(WARM_UP, run.arguments.lifecycles)
    lives = _Lives(run)
    lives.measure_all(WARM_UP, report=False)
    for _ in run.each_round():
        lives.measure_all(count, report=True)
    lives.add_notes()


@dataclass(frozen=True)
class _Lived:
    """What came of so many lifecycles.

    Attributes:
        rate: lifecycles a second, without the first and the last, which had fewer beside them.
        cpu: seconds of processor time, by process.
        cores: how many cores each process used.
        delays: seconds from the answer to the last call until the watch had received the end;
            negative where the watch was first.
    """

    lifecycles: int
    changes: int
    rate: float
    cpu: Mapping[str, float]
    cores: Mapping[str, float]
    delays: Sequence[float]


class _Lives:
    """The servers, and the processes that make the load."""

    def __init__(self, run: Run) -> None:
        run.tell("starting the servers")
        self._run = run
        self._bare = run.enter(BareServer(program="baseline.lifecycle"))
        self._servers = [run.serving(name) for name in run.databases]
        self._owners, self._worker = run.generators("load.lifecycle")
        self._etcd = run.enter(serving_etcd(run.folder)) if has_etcd() else None
        self._putters = run.generators("load.etcd") if self._etcd else []
        self._pipe = run.folder / "deliveries"
        os.mkfifo(self._pipe)
        self._lived: defaultdict[str, list[_Lived]] = defaultdict(list)

    def measure_all(self, count: int, *, report: bool) -> None:
        """Let so many jobs live on each server, in each mode; and keys in etcd."""
        if self._etcd is not None:
            keys = self._live_keys(self._etcd, count)
            if report:
                self._add(f"etcd, {PUTS} puts", keys)
        for mode, every_update in MODES.items():
            pipe = self._pipe if every_update else None
            bare = self._live(self._bare, count, pipe)
            ceiling = bare.cpu["server"] / count * 1000
            if report:
                self._add(f"bare server, {mode}", bare)
            for server in self._servers:
                lived = self._live(server, count, pipe)
                if report:
                    self._add(f"{server.database.name}, {mode}", lived, ceiling)

    def add_notes(self) -> None:
        for title, runs in self._lived.items():
            total = sum(lived.lifecycles for lived in runs)
            changes = sum(lived.changes for lived in runs) / total
            cores = ", ".join(
                f"{name} {statistics.median(lived.cores[name] for lived in runs):.2f}"
                for name in runs[0].cores
            )
            self._run.report.note(
                f"{title}: {total:,} lifecycles of {changes:.2f} changes; cores used: {cores}."
            )
        self._run.report.note(
            "Every watch received COMPLETED, with every update also each of "
            f"{', '.join(map(str, PERCENTS))} %; and exactly the changes of these jobs were "
            "found in the database."
        )
        etcd = "etcd is not installed (Debian's etcd-server has it): left out."
        if self._etcd is not None:
            etcd = (
                f"etcd {self._etcd.version}: {PUTS} puts of {len(VALUE)} bytes to a key, each "
                "answered after its fsync, and a watch that received each of them."
            )
        self._run.report.note(etcd)

    def _live(self, server: Server | BareServer, count: int, pipe: Path | None) -> _Lived:
        """Let jobs live. Raises BenchmarkError where they are not as their watches received them.

        The load processes check what each watch received.
        """
        database = server.database if isinstance(server, Server) else None
        pids = {"server": server.pid, "owners": self._owners.pid, "worker": self._worker.pid}
        if database is not None and database.pid is not None:
            pids["database"] = database.pid
        how = {"target": server.target, "jobs": count, "pipe": None if pipe is None else str(pipe)}
        seq = 0 if database is None else database.feed_seq()
        before = _cpu(pids)
        self._worker.begin("work", **how)
        lived = self._owners.do("live", **how)
        acknowledged: dict[str, float] = dict(self._worker.end()["ended"])
        used = {name: now - before[name] for name, now in _cpu(pids).items()}
        changes = sum(version for _, _, version in lived["ended"])
        if pipe is not None and changes != count * CHANGES:
            raise BenchmarkError(f"{count} jobs have {changes} changes, not {CHANGES} each")
        if database is not None and (committed := database.feed_seq() - seq) != changes:
            raise BenchmarkError(
                f"the jobs have {changes} changes on {database.name}, {committed} are in the feed"
            )
        if acknowledged.keys() != {job_id for job_id, _, _ in lived["ended"]}:
            raise BenchmarkError(f"the jobs done at {server.target} are not those watched")
        times = [(acknowledged[job_id], received) for job_id, received, _ in lived["ended"]]
        return _lived(lived["begin"], times, changes, used)

    def _live_keys(self, etcd: EtcdServer, count: int) -> _Lived:
        share = len(self._putters)
        pids = {"server": etcd.pid, "one of the load processes": self._putters[0].pid}
        before = _cpu(pids)
        replies = all_do(
            self._putters,
            "put",
            target=etcd.target,
            keys=count // share,
            in_flight=IN_FLIGHT // share,
        )
        used = {name: now - before[name] for name, now in _cpu(pids).items()}
        times = [(answered, received) for reply in replies for answered, received in reply["times"]]
        return _lived(min(r["begin"] for r in replies), times, len(times) * PUTS, used)

    def _add(self, title: str, lived: _Lived, ceiling: float | None = None) -> None:
        report = self._run.report
        self._lived[title].append(lived)
        cpu = {name: seconds / lived.lifecycles * 1000 for name, seconds in lived.cpu.items()}
        both = cpu["server"] + cpu.get("database", 0.0)
        what = "server and database CPU" if "database" in cpu else "server CPU"
        report.cost(f"{title}: {what}", "ms/lifecycle", both, ceiling)
        if "database" in cpu:
            report.cost(f"{title}: of it database CPU", "ms/lifecycle", cpu["database"])
        report.rate(title, "lifecycles/s", lived.rate)
        for name, value in zip(("p50", "p99"), percentiles(lived.delays), strict=True):
            report.time(f"{title}: last answer to its watch, {name}", "ms", value)


def _cpu(pids: Mapping[str, int]) -> dict[str, float]:
    return {name: cpu_seconds(pid) for name, pid in pids.items()}


def _lived(
    begin: float, times: Sequence[tuple[float, float]], changes: int, cpu: Mapping[str, float]
) -> _Lived:
    received = sorted(at for _, at in times)
    steady = received[IN_FLIGHT:-IN_FLIGHT]
    wall = received[-1] - begin
    return _Lived(
        lifecycles=len(times),
        changes=changes,
        rate=(len(steady) - 1) / (steady[-1] - steady[0]),
        cpu=cpu,
        cores={name: seconds / wall for name, seconds in cpu.items()},
        delays=[at - acknowledged for acknowledged, at in times],
    )
