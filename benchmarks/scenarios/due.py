"""What others notice while very many jobs fall due in the same second."""

import time
from collections.abc import Mapping
from typing import Any

from benchmarks.processes import BenchmarkError
from benchmarks.scenarios import Run, Scenario
from benchmarks.seed import COUNT_AGAIN, SCHEDULED, TEMPLATE, fill
from benchmarks.stats import Kind, percentiles
from benchmarks.targets import Database

REPORTED = 100
"""Jobs that others report on meanwhile."""

RATE = 100
"""Reports a second."""

BAR = 2.0
"""How many times as long the slowest of the others' calls may take."""

PAST_SECONDS = 1
"""How long ago the jobs were due, while the server starts."""

MOST_SECONDS = 600
"""After this time they are claimable, or something is wrong."""


def measure_due(run: Run) -> None:
    """Measure others' calls while very many jobs fall due at once, compared with none.

    Also how long it takes until all of them can be claimed. They are due when the server starts.
    The ceiling is how it was before.
    """
    jobs = run.arguments.jobs
    for name in run.databases:
        run.tell(f"filling {name} with {jobs:,} scheduled jobs")
        database = run.database(name)
        fill(database, TEMPLATE, scheduled=jobs)
        server = run.serving(database)
        caller = run.generators[0]
        caller.do("calls.prepare", target=server.target, jobs=REPORTED)
        calls = {"target": server.target, "rate": RATE, "seconds": run.seconds}
        for _ in run.each_round():
            server.kill()
            _schedule(database, time.time() + 86_400)
            server.start()
            calm = _milliseconds(caller.do("calls.write", **calls))
            server.kill()
            _schedule(database, time.time() - PAST_SECONDS)
            server.start()
            begin = time.monotonic()
            during = _milliseconds(caller.do("calls.write", **calls))
            if not _some_are_due(database):
                run.report.note(f"{name}: all were claimable before the last call; use more jobs.")
            while _some_are_due(database):
                if time.monotonic() > begin + MOST_SECONDS:
                    raise BenchmarkError(f"{name}: due jobs are not promoted")
                time.sleep(0.1)
            title = f"UpdateProgress while {jobs:,} jobs are due"
            run.report.add(Kind.TIME, f"{title}, p50, {name}", "ms", during[0], calm[0])
            run.report.add(Kind.TIME, f"{title}, p99, {name}", "ms", during[1], calm[1], bar=BAR)
            took = time.monotonic() - begin
            run.report.add(Kind.TIME, f"until {jobs:,} due jobs are claimable, {name}", "s", took)
        server.kill()


SCENARIO = Scenario(measure_due, {"jobs": (100_000, "jobs that fall due at once")})


def _schedule(database: Database, due: float) -> None:
    """Let all scheduled jobs wait for that time, and remove what the last round left."""
    micros = int(due * 1e6)
    database.execute(
        f"UPDATE jobs SET phase = 2, schedule_time = {micros} WHERE user_id = '{SCHEDULED}'",
        *COUNT_AGAIN,
        "VACUUM",
    )
    if database.cluster is not None:
        database.execute("ANALYZE", "CHECKPOINT")


def _some_are_due(database: Database) -> bool:
    waiting = f"SELECT 1 FROM jobs WHERE phase = 2 AND user_id = '{SCHEDULED}' LIMIT 1"
    return bool(database.fetch(waiting))


def _milliseconds(reply: Mapping[str, Any]) -> tuple[float, float]:
    """Return the median and the 99th percentile of the calls' times."""
    return percentiles([answered - due for _, _, due, answered in reply["written"]])
