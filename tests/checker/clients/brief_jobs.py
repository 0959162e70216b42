"""A client whose jobs begin, end and are deleted before most watchers have heard of them."""

import itertools
import random
from dataclasses import replace

from google.protobuf.duration_pb2 import Duration

from jobledger.v1 import job_pb2
from jobledger.v1 import worker_service_pb2 as pb
from tests.checker.clients.asking import Replicas
from tests.checker.clients.board import BRIEF, Board, pause
from tests.checker.clients.writers import cancel_job, create_job, delete_job, marked
from tests.checker.history import (
    Attempt,
    History,
    Operation,
    Outcome,
    Record,
    Snapshot,
    Step,
)

CANCELLED = 0.3
"""How many of the jobs are cancelled before they start."""

ABANDONED = 0.2
"""How many of those that start without a policy are left to their leases, which ends them."""

PAUSE_SECONDS = (0.0, 0.4)

LEASE = Duration(seconds=5)

LAST_VERSION = 3
"""Of a job that was created, started and ended."""


async def run_brief_jobs(
    name: str, replicas: Replicas, rng: random.Random, board: Board, history: History
) -> None:
    """Make one job after the other until stopped, and delete those that end as they should."""
    for number in itertools.count():
        await pause(board.load, rng.uniform(*PAUSE_SECONDS))
        if board.load.is_set():
            return
        mark = f"{name}-{number}"
        job = await create_job(mark, replicas, rng, board, history, [BRIEF])
        if job is None:
            continue
        if rng.random() < CANCELLED:
            ended = await cancel_job(job, replicas, board, history)
        else:
            abandoned = not job.own_policy and rng.random() < ABANDONED
            ended = await _complete(name, mark, job, replicas, board, history, abandoned=abandoned)
        # Else something was broken for so long that it ended in another way, or not yet.
        if ended is not None and ended.terminal and ended.version == LAST_VERSION:
            await delete_job(_record(name, mark, ended), replicas, history)


async def _complete(
    name: str,
    mark: str,
    job: Snapshot,
    replicas: Replicas,
    board: Board,
    history: History,
    *,
    abandoned: bool,
) -> Snapshot | None:
    start = pb.TransitionJobRequest(
        job_id=job.job_id,
        target_status=job_pb2.JOB_STATUS_PROCESSING,
        worker_id=name,
        lease_duration=LEASE,
    )
    start_of = await _ask("StartJob", start, replicas, history)
    started = start_of.told
    if start_of.outcome is Outcome.REFUSED:  # its type or its key is paused, or its key is full
        return await cancel_job(job, replicas, board, history)
    if started is None or abandoned:
        return None
    end = pb.MarkCompletedRequest(
        job_id=job.job_id, attempt=started.attempt, finish={"result": marked(mark)}
    )
    ended = (await _ask("MarkCompleted", end, replicas, history, mark)).told
    if ended is not None:
        board.close(ended)
    return ended


async def _ask(
    rpc: str,
    request: pb.TransitionJobRequest | pb.MarkCompletedRequest,
    replicas: Replicas,
    history: History,
    mark: str = "",
) -> Operation:
    answer = await replicas.ask("TransitionJob" if rpc == "StartJob" else rpc, request)
    changed = answer.outcome is Outcome.ACKNOWLEDGED
    operation = answer.operation(
        rpc, job_id=request.job_id, mark=mark, told=answer.told, changed=changed
    )
    history.operations.append(operation)
    return operation


def _record(name: str, mark: str, ended: Snapshot) -> Record:
    """Return what the service holds of the job: to read it would take time."""
    completed = ended.status == "COMPLETED"
    attempts = (Attempt(1, name, "COMPLETED", progress=100),) if completed else ()
    steps = (
        Step(2, "QUEUED", "PROCESSING", ended.attempt),
        Step(3, "PROCESSING", ended.status, ended.attempt, ended.reason),
    )
    result = mark if completed else ""
    return Record(
        job=replace(ended, parameters=mark, result=result),
        steps=steps,
        attempts=attempts,
        created_by=mark,
        ended_by=result,
    )
