"""Unary calls at full speed."""

from benchmarks.counting import count
from benchmarks.measure import Work, in_order, measure, unary_calls
from benchmarks.processes import all_do
from benchmarks.scenarios import Run, Scenario
from benchmarks.stats import Kind, percentiles

WARM_UP_SECONDS = 0.25


def measure_unary(run: Run) -> None:
    """Measure unary calls, many at once and one caller; and count what calls ask of a database."""
    run.tell("counting")
    for name in run.databases:
        counts = count(run.database(name), run.generators)
        for (kind, title, unit), value in counts.items():
            run.report.add(kind, f"{title} alone, {name}", unit, value)
    works = unary_calls(run.arguments.in_flight)
    alone = Work.alone("CreateJob", "create", run.arguments.calls)
    servers = [run.serving(name) for name in run.databases]
    share = run.arguments.jobs // len(run.generators)
    for server in servers:
        all_do(run.generators, "calls.prepare", target=server.target, jobs=share)
        for work in works:
            measure(server, run.generators, work, min(WARM_UP_SECONDS, run.seconds))
    for turn in run.each_round():
        for work in works:
            run.measure(work, servers, turn)
        for server in in_order(servers, turn):
            all_do(run.generators, "calls.check", target=server.target)
            usage = measure(server, run.generators[:1], alone)
            p50, _ = percentiles(usage.replies[0]["each"])
            run.report.add(
                Kind.TIME, f"CreateJob, one caller, p50, {server.database.name}", "ms", p50
            )


SCENARIO = Scenario(
    measure_unary,
    {
        "in-flight": (128, "calls at once"),
        "jobs": (1000, "running jobs that are reported on and read, in turn"),
        "calls": (500, "calls of one caller alone, a round"),
    },
)
