"""A restart while thousands watch: what it costs, how long it takes, and what others notice."""

import time
from collections.abc import Mapping
from typing import Any

from benchmarks.load.restart import JOBS_EACH
from benchmarks.processes import Generator, all_do, cpu_seconds, resident_bytes
from benchmarks.scenarios import Run, Scenario
from benchmarks.stats import Kind, percentiles
from benchmarks.targets import Server

RATE = 100
"""Other calls a second, before the restart and during it."""

SETTLE_SECONDS = 1.0
START_BAR = 1.5
MIB = 1024 * 1024


def measure_restarts(run: Run) -> None:
    """Measure a restart while thousands watch, and how long a server takes to start.

    The server is killed (SIGKILL), every watched job is changed through another server, and then
    it starts again on the same port. Every watch is the Python client's, which reconnects
    by itself, and must receive what it missed. The ceiling is how it was before the restart.
    """
    for name in run.databases:
        restarts = _Restarts(run, name)
        for _ in run.each_round():
            restarts.measure_round()
        restarts.kill()


SCENARIO = Scenario(measure_restarts, {"watches": (10_000, "half WatchJob and half WatchJobs")})


class _Restarts:
    """A server whose watches are open, and its restarts."""

    def __init__(self, run: Run, name: str) -> None:
        self._run = run
        database = run.database(name)
        self._server, self._other = Server(database), Server(database)
        run.stack.callback(self.kill)
        self._watchers, self._caller = run.generators, run.enter(Generator())
        self._server.start()
        run.tell(f"opening {run.arguments.watches:,} watches on {name}")
        owners = run.arguments.watches // (2 * JOBS_EACH * len(self._watchers))
        for number, watcher in enumerate(self._watchers):
            names = [f"owner-{number}-{n}" for n in range(max(1, owners))]
            watcher.begin("restart.hold", target=self._server.target, owners=names)
        self._watches = sum(watcher.end()["watches"] for watcher in self._watchers)
        self._caller.do("calls.prepare", target=self._server.target, jobs=RATE)

    def measure_round(self) -> None:
        report, name = self._run.report, self._server.database.name
        self._begin_calls()
        before = resident_bytes(self._server.pid)
        calm = self._caller.end()
        self._server.kill()
        self._other.start()
        all_do(self._watchers, "restart.change", target=self._other.target)
        self._other.kill()
        started = self._server.start()
        report.add(Kind.TIME, f"start to SERVING, {name}", "s", started, bar_value=START_BAR)
        serving, used = time.monotonic(), cpu_seconds(self._server.pid)
        self._begin_calls()
        received = max(r["at"] for r in all_do(self._watchers, "restart.received"))
        during = self._caller.end()
        used = (cpu_seconds(self._server.pid) - used) / self._watches
        time.sleep(min(SETTLE_SECONDS, self._run.seconds))
        memory = [now / MIB for now in (resident_bytes(self._server.pid), before)]
        watches = f"{self._watches:,} watches"
        report.add(Kind.SERVER_CPU, f"{watches} come back, {name}", "µs/watch", used * 1e6)
        report.add(Kind.MEMORY, f"after a restart, {name}", "MiB", *memory)
        report.add(Kind.TIME, f"{watches} have what they missed, {name}", "s", received - serving)
        for which, value, ceiling in zip(
            ("p50", "p99", "longest"), _milliseconds(during), _milliseconds(calm), strict=True
        ):
            title = f"UpdateProgress meanwhile, {which}, {name}"
            report.add(Kind.TIME, title, "ms", value, ceiling)

    def kill(self) -> None:
        self._server.kill()
        self._other.kill()

    def _begin_calls(self) -> None:
        """Make other calls for 5 slices of time; `end` has what came of them, and none may fail."""
        self._caller.begin(
            "calls.write", target=self._server.target, rate=RATE, seconds=5 * self._run.seconds
        )


def _milliseconds(reply: Mapping[str, Any]) -> tuple[float, float, float]:
    """Return the median, the 99th percentile and the greatest of the calls' times."""
    took = [answered - due for _, _, due, answered in reply["written"]]
    return *percentiles(took), max(took) * 1e3
