"""Jobs with large parameters: what a report on one costs, compared with a small job."""

from benchmarks.counting import counting
from benchmarks.measure import Work, measure
from benchmarks.processes import all_do
from benchmarks.scenarios import Run, Scenario
from benchmarks.stats import Kind

ADDED_BYTES = 250_000
TITLE = "UpdateProgress with 250 KB of parameters"

ONE_CALLER = Work.alone(TITLE, "progress", 50)


def measure_payloads(run: Run) -> None:
    """Measure reports on jobs with 250 KB of parameters, compared with reports on small jobs."""
    reports = Work.calls(TITLE, "progress", run.arguments.in_flight)
    for name in run.databases:
        run.tell(f"counting on {name}")
        small, large = (_log_bytes(run, name, added) for added in (0, ADDED_BYTES))
        run.report.add(Kind.WAL, f"{TITLE} alone, {name}", "bytes/change", large, small)
        servers = [run.serving(name) for _ in range(2)]
        for server, added in zip(servers, (0, ADDED_BYTES), strict=True):
            how = {"jobs": run.arguments.jobs // len(run.generators), "added_bytes": added}
            all_do(run.generators, "calls.prepare", target=server.target, **how)
            measure(server, run.generators, reports, run.seconds)
        for turn in run.each_round():
            run.compare(reports, servers, turn)


SCENARIO = Scenario(
    measure_payloads,
    {
        "in-flight": (64, "calls at once"),
        "jobs": (200, "running jobs that are reported on, in turn"),
    },
)


def _log_bytes(run: Run, name: str, added: int) -> float:
    """Return the bytes of the database's log that a report takes."""
    with counting(run.database(name)) as counted:
        server = counted.server
        how = {"jobs": 10, "added_bytes": added}
        run.generators[0].do("calls.prepare", target=server.target, **how)
        for _ in range(2):  # the first time everything is done for once
            before = counted.read()[Kind.WAL]
            done = measure(server, run.generators, ONE_CALLER).done
            written = counted.read()[Kind.WAL] - before
    return written / done
