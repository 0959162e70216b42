"""Whole lives of jobs."""

from collections.abc import Sequence

from benchmarks.load import CHANGES, IN_FLIGHT
from benchmarks.measure import lifecycles, measure
from benchmarks.processes import BenchmarkError
from benchmarks.scenarios import Run, Scenario
from benchmarks.stats import Kind, percentiles

MODES = {
    "every update": {},
    "every update, one watch of all": {"one_watch": True},
    "throttled": {"every_update": False},
    "unary calls, one watch of all": {"unary": True, "one_watch": True},
}
OBSERVER_BAR = 10.0
"""Milliseconds: p99 from the commit of a completion to its observer."""

WARM_UP = 2 * IN_FLIGHT


def measure_lives(run: Run) -> None:
    """Measure whole lives of jobs: created, claimed, reported on, completed, watched.

    The handlers do nothing else. With every update each report waits for its acknowledgement,
    and a job has eight changes; throttled, the worker library sends what it would send; unary
    calls are those of the client, without the worker library and its stream. Each job
    has a watch of its own, or one watch of their owner's jobs observes all.

    How soon a completion is observed is measured from three times. When the handler returned:
    that includes its way to the server. When the database's clock was read for the decision: that
    includes the commit. When the worker had MarkCompleted's answer, which follows the commit and
    which the worker library keeps for itself: that may be below 0, since observers are sent the
    completion at the same time.
    """
    servers = [run.serving(name) for name in run.databases]
    jobs = run.arguments.lifecycles
    for server in servers:
        measure(server, run.generators, lifecycles(WARM_UP))
    for turn in run.each_round():
        for mode, how in MODES.items():
            work = lifecycles(jobs, title=f"lifecycle, {mode}", **how)
            for server, usage in run.measure(work, servers, turn).items():
                (reply,) = usage.replies
                name = server.database.name
                title = f"{work.title}, {name}"
                took = [observed - completed for completed, observed, _ in reply["lives"]]
                _add_times(run, f"{title}: handler's return to its watch", took)
                _add_times(run, f"{title}: decision to its watch", reply["delays"])
                if answered := usage.worker.get("answered"):
                    observed = [at - answered[job] for job, at in reply["observed"].items()]
                    answer = f"{title}: MarkCompleted's answer to its watch"
                    _add_times(run, answer, observed, bar=OBSERVER_BAR)
                clients = usage.load / usage.done * 1e6
                run.report.add(Kind.CLIENT_CPU, title, "µs/lifecycle", clients)
                if mode != "throttled" and reply["changes"] != jobs * CHANGES:
                    raise BenchmarkError(f"{jobs} jobs on {name} had {reply['changes']} changes")


def _add_times(run: Run, title: str, seconds: Sequence[float], *, bar: float | None = None) -> None:
    """Add the p50 and the p99, which may have a bar, in milliseconds."""
    for name, value, at_most in zip(("p50", "p99"), percentiles(seconds), (None, bar), strict=True):
        run.report.add(Kind.TIME, f"{title}, {name}", "ms", value, bar=at_most)


SCENARIO = Scenario(measure_lives, {"lifecycles": (1000, "lifecycles a round")})
