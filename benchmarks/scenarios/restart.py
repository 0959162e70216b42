"""A restart while thousands watch; and how long a server takes to start, the client to import.

The server is killed (SIGKILL), one job of each owner is changed through another server, and then
it starts again on the same port: every watch is opened again within 100 ms, and must receive what
it missed, once. Its ceiling is how it was before the restart.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.load.restart import JOBS_EACH
from benchmarks.processes import BenchmarkError, all_do, resident_bytes
from benchmarks.run import Run
from benchmarks.stats import percentiles
from benchmarks.targets import Database, Server

CALLS = ("GetJob", "CreateJob")
CALLS_RATE = 50.0
"""Calls of each kind a second."""

SETTLE_SECONDS = 1.0
START_BAR = 1.5
IMPORT_BAR = 100.0
MIB = 1024 * 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--watches", type=int, default=10_000, metavar="N", help="default: 10000")


def measure(run: Run) -> None:
    """Start, import, and restart on each database. Raises BenchmarkError."""
    _measure_starts(run)
    for name in run.databases:
        run.tell(f"opening {run.arguments.watches:,} watches on {name}")
        restarts = _Restarts(run, name)
        for _ in run.each_round():
            restarts.measure_round()
        restarts.add_notes()


def _measure_starts(run: Run) -> None:
    """Start a server on an empty file or a migrated database; import the client."""
    migrated = {name: run.database(name) for name in run.databases}
    _start(migrated[run.databases[0]])  # the interpreter keeps what it has compiled
    _import_milliseconds("jobledger_client")
    for _ in run.each_round():
        for name, database in migrated.items():
            made = database
            if name == "SQLite":
                folder = Path(tempfile.mkdtemp(dir=run.folder))
                made = Database(name, folder, f"sqlite:///{folder / 'jobledger.db'}")
            title = "new SQLite file" if name == "SQLite" else name
            run.report.time(f"start to SERVING, {title}", "s", _start(made), bar_value=START_BAR)
        stack = _import_milliseconds("grpc")
        beyond = _import_milliseconds("jobledger_client") - stack
        title = "import jobledger_client, beyond import grpc"
        run.report.time(title, "ms", beyond, bar_value=IMPORT_BAR)


def _start(database: Database) -> float:
    server = Server(database)
    try:
        return server.start()
    finally:
        server.kill()


def _import_milliseconds(module: str) -> float:
    """Return how long an interpreter takes that imports the module and ends."""
    begin = time.monotonic()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    return (time.monotonic() - begin) * 1000


class _Restarts:
    """A server whose watches are open, half WatchJob and half WatchJobs, and its restarts."""

    def __init__(self, run: Run, name: str) -> None:
        self._report = run.report
        self._seconds = run.seconds
        self._database = run.database(name)
        self._server, self._other = Server(self._database), Server(self._database)
        run.stack.callback(self._server.kill)
        run.stack.callback(self._other.kill)
        self._watchers = run.generators("load.restart")
        (self._caller,) = run.generators("load.restart", 1)
        self._codes: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._streams = self._calls = 0
        self._server.start()
        owners = max(1, run.arguments.watches // (2 * JOBS_EACH * len(self._watchers)))
        for number, watcher in enumerate(self._watchers):
            watcher.begin("hold", target=self._server.target, name=f"{number}", owners=owners)
        for watcher in self._watchers:
            self._refuse_cancelled(Counter(watcher.end()["codes"]))
        time.sleep(SETTLE_SECONDS)

    def measure_round(self) -> None:
        self._begin_calls()
        time.sleep(5 * self._seconds)
        calm = self._caller.do("end_calls")
        before = resident_bytes(self._server.pid)
        all_do(self._watchers, "expect_break")
        self._server.kill()
        all_do(self._watchers, "broken")
        self._other.start()
        all_do(self._watchers, "change_away", target=self._other.target)
        self._other.kill()
        self._server.start()
        serving = time.monotonic()
        self._begin_calls()
        replies = all_do(self._watchers, "come_back")
        during = self._caller.do("end_calls")
        time.sleep(SETTLE_SECONDS)
        self._add_watches(replies, serving)
        self._add_calls(during, calm)
        title = f"server's memory after a restart, {self._database.name}"
        after = resident_bytes(self._server.pid)
        self._report.cost(title, "MiB", after / MIB, before / MIB)

    def add_notes(self) -> None:
        codes = _listed({"CANCELLED": 0, **self._codes})
        self._report.note(
            f"{self._streams:,} streams were opened after restarts on {self._database.name}, and "
            f"every watch received what it had missed, once. Refused and tried again: {codes}."
        )
        self._report.note(
            f"{self._calls:,} other calls were made meanwhile, one try each. "
            f"Failed: {_listed(self._failed) or 'none'}."
        )

    def _begin_calls(self) -> None:
        self._caller.do("begin_calls", target=self._server.target, rate=CALLS_RATE)

    def _add_watches(self, replies: Sequence[Mapping[str, Any]], serving: float) -> None:
        seconds = [one for reply in replies for one in reply["seconds"]]
        codes = sum((Counter(reply["codes"]) for reply in replies), Counter[str]())
        self._refuse_cancelled(codes)
        self._codes.update(codes)
        self._streams += len(seconds) + codes.total()
        watches, name = f"{len(seconds):,} watches", self._database.name
        last = max(reply["last"] for reply in replies) - serving
        synced = max(reply["synced"] for reply in replies) - serving
        self._report.time(f"{watches}: all served since SERVING, {name}", "s", last)
        self._report.time(f"{watches}: all have what they missed, {name}", "s", synced)
        for which, value in _percentiles(seconds).items():
            self._report.time(f"{watches}: first message, {which}, {name}", "ms", value)

    def _add_calls(self, during: Mapping[str, Any], calm: Mapping[str, Any]) -> None:
        self._failed.update(during["failed"])
        self._calls += sum(during["failed"].values())
        for call in CALLS:
            self._calls += len(during["seconds"][call])
            before = _percentiles(calm["seconds"][call])
            for which, value in _percentiles(during["seconds"][call]).items():
                title = f"{call} during a restart, {which}, {self._database.name}"
                self._report.time(title, "ms", value, before[which])

    def _refuse_cancelled(self, codes: Mapping[str, int]) -> None:
        """Raise BenchmarkError where the server refused a stream for good."""
        if cancelled := codes.get("CANCELLED"):
            raise BenchmarkError(f"{cancelled} streams on {self._database.name} got CANCELLED")


def _listed(codes: Mapping[str, int]) -> str:
    return ", ".join(f"{code} {number:,}" for code, number in codes.items())


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return the median, the 99th percentile and the greatest, in milliseconds."""
    p50, p99 = percentiles(seconds)
    return {"p50": p50, "p99": p99, "max": max(seconds) * 1e3}
