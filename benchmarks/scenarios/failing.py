"""What jobs cost that fail again and again, of the server and of the worker that fails them."""

import time
from collections.abc import Sequence

from benchmarks.processes import BenchmarkError, Generator, cpu_seconds
from benchmarks.scenarios import Run, Scenario
from benchmarks.stats import Kind, percentiles
from benchmarks.targets import Server

ATTEMPTS = 1000
"""As many as a job may have: the pauses between them grow to five minutes."""

SERVED = 20
"""Jobs of the other type."""

BAR = 20.0
"""Milliseconds in a second, a fiftieth of a core."""


def measure_failing(run: Run) -> None:
    """Measure what jobs cost that always fail and are retried, with the usual pauses.

    A worker fails them from their creation on, and a while later server and worker are compared
    with the same two before there were jobs. Then another type's jobs are done beside them.
    """
    options = run.arguments
    for name in run.databases:
        server = run.serving(name)
        caller, worker = run.generators
        worker.do("failing.work", target=server.target)
        served = {"target": server.target, "jobs": SERVED}
        caller.do("failing.serve", **served)
        run.tell(f"{name}: the worker has nothing to do")
        idle = _use(server, worker, options.watched)
        alone = percentiles(caller.do("failing.serve", **served)["each"])
        run.tell(f"{name}: {options.jobs} jobs fail")
        failing = {"jobs": options.jobs, "attempts": ATTEMPTS}
        caller.do("failing.create", target=server.target, **failing)
        time.sleep(options.first)
        before = _attempts(server)
        busy = _use(server, worker, options.watched)
        attempts = _attempts(server) - before
        beside = percentiles(caller.do("failing.serve", **served)["each"])
        if not attempts:
            raise BenchmarkError("no job failed meanwhile: watch for longer")
        run.report.note(f"{name}: {attempts} attempts failed in {options.watched:g} s.")
        what = f"{options.jobs} jobs that fail, {name}"
        for kind, of, used, unused in zip(
            (Kind.SERVER_CPU, Kind.CLIENT_CPU), ("server", "worker"), busy, idle, strict=True
        ):
            run.report.add(kind, f"{of}, idle, {name}", "ms/s", unused)
            run.report.add(kind, f"{of}, {what}", "ms/s", used, unused, bar_value=BAR)
        for word, value, usual in zip(("p50", "p99"), beside, alone, strict=True):
            title = f"another type's job beside {what}, {word}"
            run.report.add(Kind.TIME, title, "ms", value, usual)
        server.kill()


SCENARIO = Scenario(
    measure_failing,
    {
        "jobs": (100, "jobs that fail"),
        "first": (60.0, "seconds that they have failed for before anything is measured"),
        "watched": (60.0, "seconds that are measured"),
    },
)


def _use(server: Server, worker: Generator, seconds: float) -> Sequence[float]:
    """Return the milliseconds of CPU in a second of the server and of the worker."""
    pids = server.pid, worker.pid
    before = [cpu_seconds(pid) for pid in pids]
    begin = time.monotonic()
    time.sleep(seconds)
    wall = time.monotonic() - begin
    return [(cpu_seconds(pid) - used) / wall * 1000 for pid, used in zip(pids, before, strict=True)]


def _attempts(server: Server) -> int:
    """Return how many attempts have failed."""
    ((count,),) = server.database.fetch("SELECT count(*) FROM attempts")
    return int(count)
