"""Whole lives of jobs on the service, and of keys in etcd."""

import os
import shutil
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.load import CHANGES, IN_FLIGHT, Life
from benchmarks.measure import Work, lifecycles, measure, name_of
from benchmarks.processes import BenchmarkError, free_port, running
from benchmarks.scenarios import Run, Scenario
from benchmarks.stats import Kind, percentiles
from benchmarks.targets import Other

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
    """Measure whole lives of jobs: created, claimed, reported on, completed, watched; and etcd.

    The handlers do nothing else. With every update each report waits for its acknowledgement,
    and a job has eight changes; throttled, the worker library sends what it would send; unary
    calls are those of the client, without the worker library and its stream. Each job
    has a watch of its own, or one watch of their owner's jobs observes all. The
    ceiling is the same on the bare server. Where etcd is installed, keys are put eight times.

    How soon a completion is observed is measured from three times. When the handler returned:
    that includes its way to the server. When the database's clock was read for the decision: that
    includes the commit. When the worker had MarkCompleted's answer, which follows the commit and
    which the worker library keeps for itself: that may be below 0, since observers are sent the
    completion at the same time.
    """
    targets = run.targets()
    etcd = run.enter(_serving_etcd(run.folder)) if shutil.which("etcd") else None
    jobs = run.arguments.lifecycles
    for target in targets:
        measure(target, run.generators, lifecycles(WARM_UP))
    for turn in run.each_round():
        for mode, how in MODES.items():
            work = lifecycles(jobs, title=f"lifecycle, {mode}", **how)
            for target, usage in run.compare(work, targets, turn).items():
                (reply,) = usage.replies
                name = name_of(target)
                _add_lives(run, f"{work.title}, {name}", reply["lives"])
                _add_times(run, f"{work.title}, {name}: decision to its watch", reply["delays"])
                if answered := usage.worker.get("answered"):
                    observed = [at - answered[job] for job, at in reply["observed"].items()]
                    title = f"{work.title}, {name}: MarkCompleted's answer to its watch"
                    _add_times(run, title, observed, bar=OBSERVER_BAR if target.database else None)
                clients = usage.load / usage.done * 1e6
                run.report.add(Kind.CLIENT_CPU, f"{work.title}, {name}", "µs/lifecycle", clients)
                if mode != "throttled" and reply["changes"] != jobs * CHANGES:
                    raise BenchmarkError(f"{jobs} jobs on {name} had {reply['changes']} changes")
        if etcd is not None:
            shared = {"jobs": jobs, "in_flight": IN_FLIGHT}
            work = Work("", "key", "keys.live", shared=shared, timed=False)
            usage = measure(etcd, run.generators, work)
            title = f"etcd, {CHANGES} puts of a key that is watched"
            run.report.add(Kind.SERVER_CPU, title, "µs/key", usage.microseconds)
            run.report.add(Kind.RATE, title, "keys/s", usage.rate)
            _add_lives(run, title, [life for reply in usage.replies for life in reply["lives"]])
    if etcd is None:
        run.report.note("etcd is not installed (Debian's etcd-server has it): left out.")


def _add_lives(run: Run, title: str, lives: Sequence[Life]) -> None:
    took = [observed - completed for completed, observed, _ in lives]
    _add_times(run, f"{title}: handler's return to its watch", took)


def _add_times(run: Run, title: str, seconds: Sequence[float], *, bar: float | None = None) -> None:
    """Add the p50 and the p99, which may have a bar, in milliseconds."""
    for name, value, at_most in zip(("p50", "p99"), percentiles(seconds), (None, bar), strict=True):
        run.report.add(Kind.TIME, f"{title}, {name}", "ms", value, bar_value=at_most)


SCENARIO = Scenario(measure_lives, {"lifecycles": (1000, "lifecycles a round")})


@contextmanager
def _serving_etcd(folder: Path) -> Iterator[Other]:
    """Serve on loopback from an empty folder for as long as the block lasts."""
    target, peers = (f"127.0.0.1:{free_port()}" for _ in range(2))
    listen, announce = "--listen-client-urls", "--advertise-client-urls"
    command = ["etcd", "--data-dir", str(folder / "etcd"), "--log-level", "warn"]
    command += [listen, f"http://{target}", announce, f"http://{target}"]
    command += ["--listen-peer-urls", f"http://{peers}"]

    def serves() -> bool:
        try:
            with urllib.request.urlopen(f"http://{target}/health", timeout=5) as answer:
                return b'"true"' in answer.read()
        except OSError:
            return False

    # Settings in the environment could weaken its durability.
    ignored = {name: "" for name in os.environ if name.startswith("ETCD_")}
    with running(command, folder / "etcd.log", serves, ignored) as pid:
        yield Other(target, pid)
