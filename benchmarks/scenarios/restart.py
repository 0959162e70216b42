"""A restart while thousands watch: what it costs, how long it takes, and what others notice."""

from collections.abc import Mapping
from typing import Any

from benchmarks.processes import all_do, cpu_seconds, resident_bytes
from benchmarks.scenarios import Run, Scenario
from benchmarks.stats import Kind, percentiles

JOBS = 100
RATE = 100
"""Other calls a second, before the restart and during it."""

START_BAR = 1.5
MIB = 1024 * 1024


def measure_restarts(run: Run) -> None:
    """Measure a restart while thousands watch, and how long a server takes to start.

    The server is killed (SIGKILL) and starts again on the same port. Then every watch is opened
    again at the same moment, while others call. The ceiling is how it was before the restart.
    """
    for name in run.databases:
        server = run.serving(name)
        watcher, caller = run.generators
        made = all_do(run.generators, "calls.prepare", target=server.target, jobs=JOBS)
        # Other calls, on jobs that nobody watches, go on for five slices of time; none may fail.
        calls = {"target": server.target, "rate": RATE, "seconds": 5 * run.seconds}
        how = {"target": server.target, "job_ids": made[0]["jobs"]}
        how |= {"streams": run.arguments.watches, "at_once": run.arguments.watches}
        watches = f"{run.arguments.watches:,} watches"
        run.tell(f"opening {watches} on {name}")
        watcher.do("watches.watch_job", name="watches", **how)
        for _ in run.each_round():
            caller.begin("calls.write", **calls)
            before, calm = resident_bytes(server.pid), caller.end()
            watcher.do("watches.close", name="watches")
            server.kill()
            started = server.start()
            used = cpu_seconds(server.pid)
            caller.begin("calls.write", **calls)
            opened = watcher.do("watches.watch_job", name="watches", **how)["seconds"]
            used = (cpu_seconds(server.pid) - used) / run.arguments.watches
            during, after = caller.end(), resident_bytes(server.pid)
            title = f"{watches} come back, {name}"
            run.report.add(Kind.SERVER_CPU, title, "µs/watch", used * 1e6)
            run.report.add(Kind.TIME, title, "s", opened)
            memory = after / MIB, before / MIB
            run.report.add(Kind.MEMORY, f"after a restart, {name}", "MiB", *memory)
            title = f"start to SERVING, {name}"
            run.report.add(Kind.TIME, title, "s", started, bar_value=START_BAR)
            for number, which in enumerate(("p50", "p99")):
                took = _milliseconds(during)[number], _milliseconds(calm)[number]
                run.report.add(Kind.TIME, f"UpdateProgress meanwhile, {which}, {name}", "ms", *took)
        watcher.do("watches.close", name="watches")
        server.kill()


def _milliseconds(reply: Mapping[str, Any]) -> tuple[float, float]:
    """Return the median and the 99th percentile of the calls' times."""
    return percentiles([answered - due for _, _, due, answered in reply["written"]])


SCENARIO = Scenario(measure_restarts, {"watches": (10_000, "watches, of 100 jobs")})
