"""Fills a database before it is measured: jobs as they are after some time.

A server makes a template of TEMPLATE jobs through its own calls. Then plain SQL copies their rows
as often as it takes: each copy has its own time in its ids and its own numbers in the feed.
So this knows what a copy must not share with the others, and nothing else of the schema.
"""

import itertools
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import grpc
from google.protobuf.duration_pb2 import Duration

from benchmarks.load import asset_url
from benchmarks.load.messages import create_requests
from benchmarks.targets import Database, Server
from jobledger.v1.asset_pb2 import NewAsset
from jobledger.v1.job_pb2 import JobError
from jobledger.v1.job_service_pb2 import BatchCreateJobsRequest
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger.v1.worker_service_pb2 import (
    ClaimJobsRequest,
    FinishUpdate,
    MarkCompletedRequest,
    MarkFailedRequest,
    MarkPartialRequest,
)
from jobledger.v1.worker_service_pb2_grpc import WorkerServiceStub

EACH = 100
"""Jobs of the template's large owner, and of its small owner."""

TEMPLATE = 2 * EACH

JOB_TYPES = ("render", "upscale", "caption", "train", "export", "transcode", "thumbnail")

QUEUED, RUNNING, PARTIAL, FAILED = 1, 1, 6, 12
"""Jobs of the template; all others are COMPLETED, with an asset each."""

_COLUMNS = {
    "SQLite": "SELECT t.name, c.name FROM sqlite_master t, pragma_table_info(t.name) c"
    " WHERE t.type = 'table' ORDER BY t.name, c.cid",
    "PostgreSQL": "SELECT table_name, column_name FROM information_schema.columns"
    " WHERE table_schema = 'public' ORDER BY table_name, ordinal_position",
}
"""Queries for all tables with each of their columns."""

_PHASES = ("ready", "blocked", "scheduled", "held", "waiting")
_COUNTS = ", ".join(f"count(CASE WHEN phase = {n} THEN 1 END)" for n in range(len(_PHASES)))
_TENANT = "CASE fairness_key WHEN '' THEN user_id ELSE fairness_key END"

_COUNT_LEVELS = (
    "INSERT INTO queues (job_type, priority, fairness_key, vtime, claimed, claimable,"
    f" {', '.join(_PHASES)}) SELECT job_type, priority, '', 0, 0, 0, {_COUNTS}"
    " FROM jobs WHERE phase IS NOT NULL GROUP BY 1, 2"
)
_COUNT_QUEUES = (
    "INSERT INTO queues (id, job_type, priority, fairness_key, vtime, claimed, claimable,"
    f" {', '.join(_PHASES)})"
    f" SELECT queue_id, job_type, priority, {_TENANT}, 0, 0,"
    f" CASE WHEN min(phase) = 0 THEN 1 ELSE 0 END, {_COUNTS}"
    " FROM jobs WHERE phase IS NOT NULL GROUP BY 1, 2, 3, 4"
)
_COUNT_AGAIN = ("DELETE FROM queues", _COUNT_QUEUES, _COUNT_LEVELS)
"""Counts the jobs in their queues again, which have had no turn then. No job has a concurrency
key."""

DAY = Duration(seconds=86_400)


class Job(NamedTuple):
    """A job that a call may be about."""

    id: str
    owner: str
    type: str


@dataclass(frozen=True)
class Filled:
    """A database with its jobs, and how many seconds it took to make them.

    Attributes:
        template: id, owner, type and status of each job of the template.
        copies: how often it was copied.
        oldest: the time of the first copy, in milliseconds.
    """

    database: Database
    template: Sequence[tuple[str, str, str, str]]
    copies: int
    oldest: int
    seconds: float
    _random: random.Random = field(default_factory=lambda: random.Random(5))

    @property
    def jobs(self) -> int:
        return (self.copies + 1) * TEMPLATE

    def pick(self, which: str) -> Job:
        """Pick a job at random: any, the large owner's, a small owner's, or a running one."""
        of = [one for one in self.template if which in (one[1], one[3], "any")]
        job_id, owner, job_type, _ = self._random.choice(of)
        number = self._random.randint(1, self.copies)
        return Job(_prefix(self.oldest + number) + job_id[13:], _owner(owner, number), job_type)


def fill(database: Database, jobs: int) -> Filled:
    """Make that many jobs, a multiple of TEMPLATE. Raises BenchmarkError."""
    begin = time.monotonic()
    with Server(database) as server:
        _make_template(server.target)
    template = database.fetch("SELECT CAST(id AS VARCHAR(36)), user_id, job_type, status FROM jobs")
    copies = jobs // TEMPLATE - 1
    ((newest,),) = database.fetch("SELECT min(create_time) / 1000 FROM jobs")
    filled = Filled(database, template, copies, int(newest) - copies - 1, 0.0)
    copying = _copies(filled, database)
    if database.cluster is None:
        database.execute(
            *(
                f"PRAGMA {s}"
                for s in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-1000000")
            ),
            *copying,
            "PRAGMA journal_mode=WAL",  # no ANALYZE: the server never does that either
        )
    else:
        database.execute(
            "SET session_replication_role = replica",  # no trigger runs, no reference is checked
            "SET synchronous_commit = off",
            *copying,
            "VACUUM (ANALYZE)",
            "CHECKPOINT",
        )
    return replace(filled, seconds=time.monotonic() - begin)


def _copies(filled: Filled, database: Database) -> Iterator[str]:
    """Yield the statements that copy all rows of jobs, as often as it takes."""
    seq = database.feed_seq()
    tables: dict[str, list[str]] = {}
    for table, column in database.fetch(_COLUMNS[database.name]):
        tables.setdefault(table, []).append(column)
    # The jobs first: the other rows refer to them.
    of_jobs = {"jobs": tables.pop("jobs")}
    of_jobs |= {table: own for table, own in tables.items() if "job_id" in own}
    for table in of_jobs:
        yield f"CREATE TEMPORARY TABLE template_{table} AS SELECT * FROM {table}"
    yield "BEGIN"
    for number in range(1, filled.copies + 1):
        prefix = _prefix(filled.oldest + number)
        changed = {
            "id": database.id_of(f"'{prefix}' || substr(CAST(id AS VARCHAR(36)), 14)"),
            "job_id": database.id_of(f"'{prefix}' || substr(CAST(job_id AS VARCHAR(36)), 14)"),
            "user_id": f"CASE user_id WHEN 'small' THEN 'small-{number}' ELSE user_id END",
            # The small owners are one tenant, so that copies are in the queues of the template.
            "fairness_key": "CASE user_id WHEN 'small' THEN 'small' ELSE fairness_key END",
            "request_id": f"CASE request_id WHEN '' THEN '' ELSE request_id || '-{number}' END",
            "create_time": f"{(filled.oldest + number) * 1000}",
            "change_seq": f"change_seq + {number * seq}",
            "seq": f"seq + {number * seq}",
        }
        for table, own in of_jobs.items():
            values = ", ".join(changed.get(column, column) for column in own)
            into = f"INSERT INTO {table} ({', '.join(own)})"
            yield f"{into} SELECT {values} FROM template_{table}"
    yield "COMMIT"
    for table in of_jobs:
        yield f"DROP TABLE template_{table}"
    yield from _COUNT_AGAIN


def _make_template(target: str) -> None:
    with grpc.insecure_channel(target) as channel:
        jobs, workers = JobServiceStub(channel), WorkerServiceStub(channel)
        for owner in ("large", "small"):
            requests = list(itertools.islice(create_requests(owner), EACH))
            for number, request in enumerate(requests):
                request.job_type = JOB_TYPES[number % len(JOB_TYPES)]
            jobs.BatchCreateJobs(BatchCreateJobsRequest(user_id=owner, requests=requests))
        claimed: list[str] = []
        while missing := TEMPLATE - QUEUED - len(claimed):
            claim = ClaimJobsRequest(
                worker_id="worker-1",
                job_types=JOB_TYPES,
                max_jobs=min(missing, 100),
                lease_duration=DAY,
            )
            claimed += (job.id for job in workers.ClaimJobs(claim).jobs)
        random.Random(5).shuffle(claimed)
        for number, job_id in enumerate(claimed[RUNNING:]):
            if number < PARTIAL:
                workers.MarkPartial(MarkPartialRequest(job_id=job_id, attempt=1))
            elif number < PARTIAL + FAILED:
                error = JobError(reason="UNKNOWN", message="it failed")
                workers.MarkFailed(
                    MarkFailedRequest(job_id=job_id, attempt=1, finish=FinishUpdate(error=error))
                )
            else:
                asset = NewAsset(asset_type="image", url=asset_url(job_id), file_size=1_234_567)
                workers.MarkCompleted(
                    MarkCompletedRequest(
                        job_id=job_id, attempt=1, finish=FinishUpdate(assets=[asset])
                    )
                )


def _prefix(milliseconds: int) -> str:
    """Return the beginning of an id of that time: 13 characters."""
    return f"{milliseconds >> 16:08x}-{milliseconds & 0xFFFF:04x}"


def _owner(owner: str, number: int) -> str:
    """Return the owner of a copied job: half of all jobs are the large owner's."""
    return owner if owner == "large" else f"{owner}-{number}"
