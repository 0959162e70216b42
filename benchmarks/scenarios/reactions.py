"""How soon a worker's handler starts, and knows of a cancellation."""

from benchmarks.scenarios import Run, Scenario
from benchmarks.stats import Kind, percentiles
from benchmarks.targets import Server

START_BARS = 2.0, 8.0
CANCEL_BAR, REPLICA_BAR = 20.0, 50.0
"""Milliseconds: p50 and p99 of a start, p99 of a cancellation."""


def measure_reactions(run: Run) -> None:
    """Measure how soon a handler starts after CreateJob, and knows of CancelJob.

    Times are from the answer to the call, by the Python worker library.
    """
    for name in run.databases:
        server = run.serving(name)
        routes = {"": server}
        if server.database.pid is not None:
            routes = {"": server, " at another replica": run.serving(server.database)}
        for _ in run.each_round():
            title = f"CreateJob's answer to the handler's start, {name}"
            _add(run, title, START_BARS, server, "reactions.starts")
            for where, replica in routes.items():
                title = f"CancelJob's answer{where} to the handler's knowledge, {name}"
                bars = None, REPLICA_BAR if where else CANCEL_BAR
                how = {"cancel_at": replica.target}
                _add(run, title, bars, server, "reactions.cancellations", **how)


def _add(
    run: Run,
    title: str,
    bars: tuple[float | None, float],
    server: Server,
    command: str,
    **how: str,
) -> None:
    jobs = run.arguments.jobs
    reply = run.generators[0].do(command, target=server.target, jobs=jobs, **how)
    for word, value, bar in zip(("p50", "p99"), percentiles(reply["seconds"]), bars, strict=True):
        run.report.add(Kind.TIME, f"{title}, {word}", "ms", value, bar_value=bar)


SCENARIO = Scenario(measure_reactions, {"jobs": (200, "jobs of each kind a round")})
