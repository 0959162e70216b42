"""Clients that create jobs, cancel some, and delete or repeat some that have ended."""

import asyncio
import itertools
import random
import time
from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct

from jobledger.v1 import job_pb2
from jobledger.v1 import job_service_pb2 as pb
from tests.checker.clients.asking import Answer, Replicas
from tests.checker.clients.board import (
    DEFAULT_PRIORITY,
    DEFAULTED,
    KEYS,
    TENANTS,
    TYPES,
    USERS,
    Board,
    pause,
)
from tests.checker.clients.bulk import cancel_by_filter, delete_by_filter
from tests.checker.clients.records import Unreadable, read_record
from tests.checker.facts import snapshot
from tests.checker.history import History, Outcome, Record, Snapshot
from tests.checker.judge.permitted import CHOOSER, beyond
from tests.checker.policies import INITIAL_BACKOFF, MAX_ATTEMPTS

MOST_OPEN = 400
"""Jobs that may wait or run at once, so that a long outage leaves no flood behind."""

SCHEDULED = 0.1
SCHEDULED_IN_SECONDS = (-0.5, 2.0)

DELAYED = 0.5
"""How many of those that are due later have a delay instead of a time."""

UPDATED = 0.1
"""How many of the jobs are updated after their creation, if they are not started."""

REPEATED = 0.4
"""How many of the failed jobs are repeated by one or several calls of RerunJob."""

KEYED = 0.25
"""How many of the jobs have a concurrency key."""

PRIORITIES = (5, 5, 5, 5, 0, 9)

LARGE_BYTES = 20_000
"""More than a server parses at once while others wait."""

UNIQUE = 0.1
"""How many of the jobs have one of few unique keys."""

UNIQUE_KEYS = 2

POLICY = job_pb2.RetryPolicy(
    max_attempts=MAX_ATTEMPTS,
    initial_backoff=Duration(nanos=INITIAL_BACKOFF * 1000),
    max_backoff=Duration(seconds=1),
)

WITH_POLICY = 0.7
"""How many of the creations have a policy."""

WITH_PRIORITY = 0.6
"""How many of the creations say their priority."""

IN_BULK = 0.3
"""How many of the cancellations and deletions are made by the calls for many jobs."""

REFUSE_OUTPUT = 0.2
"""How many of the jobs refuse output that is more than is stored."""

BATCHED = 0.2
"""How many of the jobs are created by BatchCreateJobs."""

QUEUE_TIMEOUT = RUN_TIMEOUT = Duration(seconds=20)


async def create_jobs(
    name: str,
    replicas: Replicas,
    rng: random.Random,
    board: Board,
    history: History,
    rate: float,
    cancelled: float,
    cancelled_within: float,
    large: float,
) -> None:
    """Create `rate` jobs a second until stopped; make up for what an outage cost.

    `cancelled` is the share of those that are cancelled, within so many seconds, and `large` that
    of those with large parameters.
    """
    due = time.monotonic() + rng.random() / rate
    for number in itertools.count():
        await pause(board.load, max(0.0, due - time.monotonic()))
        while board.open > MOST_OPEN and not board.load.is_set():
            await pause(board.load, 0.05)
        if board.load.is_set():
            return
        due += 1 / rate
        mark = f"{name}-{number}"
        size = LARGE_BYTES if large and rng.random() < large else 0
        job = await create_job(mark, replicas, rng, board, history, size=size)
        if job is not None and rng.random() < UPDATED:
            await update_job(job, replicas, rng, history)
        if job is not None and rng.random() < cancelled:
            await asyncio.sleep(rng.uniform(0, cancelled_within))
            if rng.random() < IN_BULK:
                ended = await cancel_by_filter(mark, job, replicas, history)
                if ended is not None and ended.terminal:
                    board.close(ended)
            else:
                await cancel_job(job, replicas, board, history)


def marked(mark: str, *, size: int = 0) -> Struct:
    """Return a payload with a mark, and with so many bytes besides."""
    payload = Struct()
    payload.update({"mark": mark, "more": "x" * size} if size else {"mark": mark})
    return payload


async def create_job(
    mark: str,
    replicas: Replicas,
    rng: random.Random,
    board: Board,
    history: History,
    job_types: Sequence[str] = TYPES,
    *,
    size: int = 0,
    users: Sequence[str] = USERS,
    free_key: str = "",
    group_id: str = "",
) -> Snapshot | None:
    """Create a job of one of the users and types; return it if that was acknowledged.

    Its parameters are larger than others by `size` bytes. `free_key` is a unique key that no job of
    theirs has.
    """
    request = pb.CreateJobRequest(
        user_id=rng.choice(users),
        job_type=rng.choice(job_types),
        parameters=marked(mark, size=size),
        labels={"mark": mark},
        request_id=mark,
        retry_policy=POLICY if rng.random() < WITH_POLICY else None,
        queue_timeout=QUEUE_TIMEOUT,
        run_timeout=RUN_TIMEOUT,
        priority=rng.choice(PRIORITIES) if rng.random() < WITH_PRIORITY else None,
        fairness_key=rng.choice(TENANTS),
        concurrency_key=rng.choice(KEYS) if rng.random() < KEYED else "",
        group_id=group_id,
    )
    if free_key or rng.random() < UNIQUE:
        request.unique_key = free_key or f"unique-{rng.randrange(UNIQUE_KEYS)}"
        request.unique_policy = rng.choice(
            (pb.UNIQUE_POLICY_REJECT, pb.UNIQUE_POLICY_RETURN_EXISTING)
        )
    if job_types is TYPES and rng.random() < SCHEDULED:
        due_in = rng.uniform(*SCHEDULED_IN_SECONDS)
        if due_in > 0 and rng.random() < DELAYED:
            request.delay.FromMicroseconds(int(due_in * 1e6))
        else:
            request.schedule_time.FromMicroseconds(int((time.time() + due_in) * 1e6))
    request.refuse_output = rng.random() < REFUSE_OUTPUT
    too_much = beyond(request) if replicas.token == CHOOSER else ""
    answer, made = await _create(request, replicas, batched=rng.random() < BATCHED)
    told = None if made is None else snapshot(made.job)
    if (
        request.unique_policy == pb.UNIQUE_POLICY_RETURN_EXISTING
        and made is not None
        and told is not None
        # A rerun has the mark of its origin. If that is deleted, the rerun is the existing job.
        and (told.origin or made.job.labels["mark"] != mark)
    ):
        history.operations.append(
            answer.operation(
                "ReturnExisting",
                job_id=told.job_id,
                mark=request.unique_key,
                told=told,
                beyond=too_much,
                existing=made.existing,
            )
        )
        return None
    history.operations.append(
        answer.operation(
            "CreateJob",
            job_id=told.job_id if told else "",
            user_id=request.user_id,
            mark=mark,
            told=told,
            beyond=too_much,
            misdated=0 if made is None else _misdated(request, made.job),
            misdefaulted=""
            if made is None
            else _misdefaulted(request, made.job, known=answer.sent > history.defaulted_from),
            existing=None if made is None else made.existing,
            owed=Outcome.ACKNOWLEDGED if free_key else None,
            # A repetition answers with the job as it stands by now.
            changed=told is not None and told.version == 1,
        )
    )
    if told is not None:
        board.created += 1
        board.fresh.append(told)
    return told


async def _create(
    request: pb.CreateJobRequest, replicas: Replicas, *, batched: bool
) -> tuple[Answer, pb.CreateJobResponse | None]:
    """Create a job, by itself or as a batch of one; return its answer, if it was acknowledged."""
    if not batched:
        answer = await replicas.ask("CreateJob", request)
        return answer, answer.response
    batch = pb.BatchCreateJobsRequest(user_id=request.user_id, requests=[request])
    answer = await replicas.ask("BatchCreateJobs", batch)
    if answer.response is None:
        return answer, None
    (job,), (existing,) = answer.response.jobs, answer.response.existing
    return answer, pb.CreateJobResponse(job=job, existing=existing)


def _misdefaulted(request: pb.CreateJobRequest, job: job_pb2.Job, *, known: bool) -> str:
    """Return what is wrong with a new job's priority; `known` says that its type's was set."""
    if request.HasField("priority"):
        wrong = job.priority != request.priority
    else:
        wrong = known and job.job_type == DEFAULTED and job.priority != DEFAULT_PRIORITY
    return f"has the priority {job.priority}, and was created by {request}" if wrong else ""


def _misdated(request: pb.CreateJobRequest, job: job_pb2.Job) -> int:
    """Return how much later than asked a new job is due, in microseconds."""
    if not request.HasField("delay") or job.version > 1:
        return 0
    asked = job.create_time.ToMicroseconds() + request.delay.ToMicroseconds()
    return job.schedule_time.ToMicroseconds() - asked


async def cancel_job(
    job: Snapshot, replicas: Replicas, board: Board, history: History
) -> Snapshot | None:
    """Cancel a job; return it as it is then, if that was acknowledged."""
    request = pb.CancelJobRequest(job_id=job.job_id, user_id=job.user_id, reason="not wanted")
    answer = await replicas.ask("CancelJob", request)
    told = answer.told
    history.operations.append(answer.operation("CancelJob", job_id=job.job_id, told=told))
    if told is not None and told.terminal:
        board.close(told)
    return told


async def update_job(
    job: Snapshot, replicas: Replicas, rng: random.Random, history: History
) -> None:
    """Give a job another priority, or another time, or both, by one or several equal calls."""
    request = pb.UpdateJobRequest(job_id=job.job_id, user_id=job.user_id)
    changed = rng.choice(("priority", "time", "both"))
    if changed != "time":
        request.priority = rng.choice(PRIORITIES)
    if changed != "priority":
        due_in = rng.uniform(*SCHEDULED_IN_SECONDS)
        request.schedule_time.FromMicroseconds(int((time.time() + due_in) * 1e6))
    for _ in range(rng.randint(1, 2)):
        answer = await replicas.ask("UpdateJob", request)
        history.operations.append(
            answer.operation("UpdateJob", job_id=job.job_id, told=answer.told)
        )


async def repeat_jobs(
    replicas: Replicas, rng: random.Random, board: Board, history: History
) -> None:
    """Repeat failed jobs: one by one, by several calls at once, or all that there are."""
    while not board.load.is_set():
        await pause(board.load, 0.1)
        for _ in range(len(board.failed)):
            job = board.failed.popleft()
            if rng.random() < REPEATED:
                calls = range(rng.randint(1, 3))
                await asyncio.gather(*(_repeat(job, replicas, board, history) for _ in calls))
        if rng.random() < 0.1:
            request = pb.RerunJobsRequest(
                user_id=rng.choice(USERS),
                filter=pb.JobFilter(job_types=TYPES),
                max_jobs=rng.choice((1, 20)),
                jobs_per_second=rng.choice((0, 10)),
            )
            answer = await replicas.ask("RerunJobs", request)
            board.created += 0 if answer.response is None else answer.response.changed
            if answer.outcome is Outcome.UNKNOWN:
                history.operations.append(answer.operation("RerunJobs", user_id=request.user_id))


async def _repeat(job: Snapshot, replicas: Replicas, board: Board, history: History) -> None:
    request = pb.RerunJobRequest(job_id=job.job_id, user_id=job.user_id)
    answer = await replicas.ask("RerunJob", request)
    told = answer.told
    made = told is not None and told.version == 1
    facts = {"user_id": job.user_id, "mark": job.job_id, "told": told}
    history.operations.append(
        answer.operation("RerunJob", job_id=told.job_id if told else "", **facts)
    )
    if made and told is not None:
        board.created += 1
        board.fresh.append(told)


async def delete_jobs(
    replicas: Replicas, rng: random.Random, board: Board, history: History, *, share: float
) -> None:
    """Delete a share of the jobs that have ended, after noting down what they were."""
    while not board.work.is_set():
        await pause(board.work, 0.05)
        for _ in range(len(board.ended)):
            job = board.ended.popleft()
            # Those of a group go with it.
            if not job.group_id and rng.random() < share:
                await _delete(job, replicas, rng, history)


async def _delete(job: Snapshot, replicas: Replicas, rng: random.Random, history: History) -> None:
    try:
        record = await read_record(replicas, job.job_id, job.user_id)
    except Unreadable:  # something is broken for long
        return
    if record is None:
        return
    # What has ended does not change any more, so this is what is deleted.
    if not job.origin and rng.random() < IN_BULK:
        await delete_by_filter(record, replicas, history)
    else:
        await delete_job(record, replicas, history)


async def delete_job(record: Record, replicas: Replicas, history: History) -> None:
    """Delete a job that has ended, of which the record is known."""
    job = record.job
    history.records[job.job_id] = record
    request = pb.DeleteJobRequest(job_id=job.job_id, user_id=job.user_id)
    answer = await replicas.ask("DeleteJob", request)
    assets = answer.response.assets if answer.response else ()
    removed = tuple(asset.storage_path for asset in assets)
    history.operations.append(answer.operation("DeleteJob", job_id=job.job_id, removed=removed))
