"""Fills a database before it is measured: jobs as they are after some time.

A server makes a template of TEMPLATE jobs through its own calls. Then plain SQL copies their rows
as often as it takes: each copy has its own time in its ids and its own numbers in the feed. Jobs
that wait for their schedule, or for a retry, are copied as often as is said for them.
So this knows what a copy must not share with the others, and nothing else of the schema.
"""

import itertools
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from benchmarks.load import asset_url
from benchmarks.load.messages import create_requests
from benchmarks.targets import Database, Server
from jobledger.v1.asset_pb2 import NewAsset
from jobledger.v1.job_pb2 import JOB_STATUS_PROCESSING as PROCESSING
from jobledger.v1.job_pb2 import JobError, RetryPolicy
from jobledger.v1.job_service_pb2 import BatchCreateJobsRequest
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger.v1.worker_service_pb2 import (
    ClaimJobsRequest,
    FinishUpdate,
    MarkCompletedRequest,
    MarkFailedRequest,
    MarkPartialRequest,
    TransitionJobRequest,
)
from jobledger.v1.worker_service_pb2_grpc import WorkerServiceStub

EACH = 100
"""Jobs of the template's large owner, and of its small owner."""

TEMPLATE = 2 * EACH

JOB_TYPES = ("render", "upscale", "caption", "train", "export", "transcode", "thumbnail")

SCHEDULED, RETRYING = "scheduled", "retrying"
"""Owners of jobs that wait for their schedule, and for a retry: EACH of them in the template."""

QUEUED, RUNNING, PARTIAL, FAILED = 1, 1, 6, 12
"""Jobs of the template; all others are COMPLETED, with an asset each."""

_COLUMNS = {
    "SQLite": "SELECT t.name, c.name FROM sqlite_master t, pragma_table_info(t.name) c"
    " WHERE t.type = 'table' ORDER BY t.name, c.cid",
    "PostgreSQL": "SELECT table_name, column_name FROM information_schema.columns"
    " WHERE table_schema = 'public' ORDER BY table_name, ordinal_position",
}
"""Queries for all tables with each of their columns."""

_PHASES = ("ready", "blocked", "scheduled", "held")
_COUNTS = ", ".join(f"count(CASE WHEN phase = {n} THEN 1 END)" for n in range(len(_PHASES)))
_TENANT = "CASE fairness_key WHEN '' THEN user_id ELSE fairness_key END"

_COUNT_LEVELS = (
    f"INSERT INTO levels (job_type, priority, vtime, {', '.join(_PHASES)})"
    f" SELECT job_type, priority, 0, {_COUNTS} FROM jobs WHERE phase IS NOT NULL GROUP BY 1, 2"
)
_COUNT_QUEUES = (
    "INSERT INTO queues (id, job_type, priority, fairness_key, vtime, claimed, claimable,"
    f" {', '.join(_PHASES)})"
    f" SELECT queue_id, job_type, priority, {_TENANT}, 0, 0,"
    f" CASE WHEN min(phase) = 0 THEN 1 ELSE 0 END, {_COUNTS}"
    " FROM jobs WHERE phase IS NOT NULL GROUP BY 1, 2, 3, 4"
)
COUNT_AGAIN = ("DELETE FROM levels", _COUNT_LEVELS, "DELETE FROM queues", _COUNT_QUEUES)
"""Counts the jobs in their queues again, which have had no turn then. No job has a concurrency
key."""

DAY = Duration(seconds=86_400)

WAIT = Duration(seconds=6 * 86_400)
"""Until the time of the jobs that wait for it."""


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


def fill(database: Database, jobs: int, *, scheduled: int = 0, retrying: int = 0) -> Filled:
    """Make that many jobs, a multiple of TEMPLATE. Raises BenchmarkError.

    Args:
        database: where.
        jobs: how many, but for those that wait for their time.
        scheduled: how many more wait for their schedule, a multiple of EACH.
        retrying: how many more wait for a retry, a multiple of EACH.
    """
    begin = time.monotonic()
    waiting = {SCHEDULED: scheduled // EACH, RETRYING: retrying // EACH}
    with Server(database) as server:
        _make_template(server.target)
        _make_waiting(server.target, [owner for owner, count in waiting.items() if count])
    template = database.fetch(
        "SELECT CAST(id AS VARCHAR(36)), user_id, job_type, status FROM jobs"
        f" WHERE user_id NOT IN ('{SCHEDULED}', '{RETRYING}')"
    )
    copies = jobs // TEMPLATE - 1
    ((newest,),) = database.fetch("SELECT min(create_time) / 1000 FROM jobs")
    of_waiting = {owner: max(0, count - 1) for owner, count in waiting.items()}
    oldest = int(newest) - copies - sum(of_waiting.values()) - 1
    filled = Filled(database, template, copies, oldest, 0.0)
    copying = _copies(filled, database, {"large": copies, "small": copies, **of_waiting})
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


def _copies(filled: Filled, database: Database, copies: Mapping[str, int]) -> Iterator[str]:
    """Yield the statements that copy all rows of jobs, as often as their owners' are to be."""
    seq = database.feed_seq()
    tables = columns_of(database)
    # The jobs first: the other rows refer to them.
    of_jobs = {"jobs": tables.pop("jobs")}
    of_jobs |= {table: own for table, own in tables.items() if "job_id" in own}
    numbers = itertools.count(1)
    for count, owners in _by_count(copies):
        ids = f"SELECT id FROM jobs WHERE user_id IN ({', '.join(map(repr, owners))})"
        for table in of_jobs:
            key = "id" if table == "jobs" else "job_id"
            of_owners = f"SELECT * FROM {table} WHERE {key} IN ({ids})"
            yield f"CREATE TEMPORARY TABLE template_{table} AS {of_owners}"
        yield "BEGIN"
        for number in itertools.islice(numbers, count):
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
    yield from COUNT_AGAIN


def columns_of(database: Database) -> dict[str, list[str]]:
    """Return the columns of each table, in order."""
    tables: dict[str, list[str]] = {}
    for table, column in database.fetch(_COLUMNS[database.name]):
        tables.setdefault(table, []).append(column)
    return tables


def _by_count(copies: Mapping[str, int]) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield the owners whose jobs are copied as often, the numbers of the others after theirs."""
    for count, owners in itertools.groupby(copies, copies.__getitem__):
        yield count, list(owners)


def _make_waiting(target: str, owners: Sequence[str]) -> None:
    """Make the templates of jobs that wait for their time."""
    later = Timestamp(seconds=int(time.time()) + WAIT.seconds)
    policy = RetryPolicy(max_attempts=2)
    error = JobError(reason="UNKNOWN", message="it failed")
    with grpc.insecure_channel(target) as channel:
        jobs, workers = JobServiceStub(channel), WorkerServiceStub(channel)
        for owner in owners:
            requests = list(itertools.islice(create_requests(owner), EACH))
            for number, request in enumerate(requests):
                request.job_type = JOB_TYPES[number % len(JOB_TYPES)]
                request.retry_policy.CopyFrom(policy)
                if owner == SCHEDULED:
                    request.schedule_time.CopyFrom(later)
            made = jobs.BatchCreateJobs(BatchCreateJobsRequest(user_id=owner, requests=requests))
            for job in made.jobs if owner == RETRYING else ():
                start = TransitionJobRequest(job_id=job.id, target_status=PROCESSING, worker_id="w")
                workers.TransitionJob(start)
                failed = MarkFailedRequest(
                    job_id=job.id,
                    attempt=1,
                    finish=FinishUpdate(error=error, retryable=True, retry_delay=WAIT),
                )
                workers.MarkFailed(failed)


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
