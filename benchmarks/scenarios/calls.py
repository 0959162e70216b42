"""Calls at full speed, compared with a bare server: unary calls, streams, batches."""

from collections.abc import Sequence

from benchmarks.counting import count
from benchmarks.measure import (
    Target,
    Work,
    batches,
    in_order,
    measure,
    name_of,
    unary_calls,
    updates,
)
from benchmarks.processes import all_do
from benchmarks.scenarios import Run, Scenario
from benchmarks.stats import Kind, percentiles

WARM_UP_SECONDS = 0.25

BARS = {
    "CreateJob": (0.80, 0.85),
    "UpdateProgress": (0.80, 0.85),
    "GetJob": (0.85, 0.85),
}
"""Of the ceiling's rates, on SQLite and on PostgreSQL."""

ALONE_BAR = 2.0
"""Milliseconds that a caller without others waits longer than at the bare server."""


def measure_unary(run: Run) -> None:
    """Measure unary calls, many at once and one caller; and count what calls ask of a database."""
    run.tell("counting")
    for name in run.databases:
        counts = count(run.database(name), run.generators)
        for (kind, title, unit), value in counts.items():
            run.report.add(kind, f"{title} alone, {name}", unit, value)
    works = unary_calls(run.arguments.in_flight)
    alone = Work.alone("CreateJob", "create", run.arguments.calls)
    targets = _start(run, works)
    for turn in run.each_round():
        _measure_round(run, works, targets, turn)
        p50 = {}
        for target in in_order(targets, turn):
            usage = measure(target, run.generators[:1], alone)
            p50[target], _ = percentiles(usage.replies[0]["each"])
        bare, *servers = targets
        for server in servers:
            title = f"CreateJob, one caller, p50 beyond the bare server's, {name_of(server)}"
            beyond = p50[server] - p50[bare]
            run.report.add(Kind.TIME, title, "ms", beyond, bar_value=ALONE_BAR)


def measure_streams(run: Run) -> None:
    """Measure streams of updates: Work over a few streams, 100 running jobs each."""
    _measure_all(run, updates(run.arguments.streams, run.arguments.window))


def measure_batches(run: Run) -> None:
    """Measure many jobs in one call: BatchCreateJobs of 500 jobs."""
    _measure_all(run, batches(run.arguments.in_flight))


UNARY = Scenario(
    measure_unary,
    {
        "in-flight": (128, "calls at once"),
        "jobs": (1000, "running jobs that are reported on and read, in turn"),
        "calls": (500, "calls of one caller alone, a round"),
    },
)
STREAMS = Scenario(
    measure_streams,
    {
        "streams": (8, "streams"),
        "window": (1000, "updates of a stream under way at once; as many as the service reads"),
        "jobs": (800, "running jobs that are reported on"),
    },
)
BATCHES = Scenario(
    measure_batches,
    {
        "in-flight": (4, "calls at once: two in a transaction, two that wait for the next"),
        "jobs": (0, "running jobs"),
    },
)


def _measure_all(run: Run, *works: Work) -> None:
    targets = _start(run, works)
    for turn in run.each_round():
        _measure_round(run, works, targets, turn)


def _start(run: Run, works: Sequence[Work]) -> list[Target]:
    """Start the servers, each with its running jobs, and warm them up."""
    targets = run.targets()
    share = run.arguments.jobs // len(run.generators)
    for target in targets:
        all_do(run.generators, "calls.prepare", target=target.target, jobs=share)
        for work in works:
            measure(target, run.generators, work, min(WARM_UP_SECONDS, run.seconds))
    return targets


def _measure_round(run: Run, works: Sequence[Work], targets: Sequence[Target], turn: int) -> None:
    for work in works:
        run.compare(work, targets, turn, bars=BARS.get(work.title))
        for target in targets:
            all_do(run.generators, "calls.check", target=target.target)
