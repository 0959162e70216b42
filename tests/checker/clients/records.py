"""Reads what the service holds."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from typing import Any

from jobledger.v1 import job_pb2
from jobledger.v1 import job_service_pb2 as pb
from tests.checker.clients.asking import Replicas
from tests.checker.clients.board import USERS
from tests.checker.clients.output_readers import Unread, read_whole
from tests.checker.facts import attempt, snapshot, step
from tests.checker.history import Attempt, History, Operation, Outcome, Record

AT_ONCE = 4
"""Jobs that are read at the same time."""

ACTIVE = (job_pb2.JOB_STATUS_QUEUED, job_pb2.JOB_STATUS_PROCESSING)


class Unreadable(Exception):
    """The service does not answer, although everything is repaired."""


async def read_record(replicas: Replicas, job_id: str, user_id: str) -> Record | None:
    """Return what there is of a job that does not change any more; None where it is gone."""
    answer = await replicas.ask("GetJob", pb.GetJobRequest(job_id=job_id, user_id=user_id))
    if answer.response is None:
        return None
    job = answer.response.job
    steps = [
        step(transition)
        async for page in _pages(
            replicas,
            "ListTransitions",
            pb.ListTransitionsRequest(job_id=job_id, user_id=user_id, page_size=1000),
        )
        for transition in page.transitions
    ]
    assets = [
        asset.storage_path
        async for page in _pages(
            replicas,
            "ListAssets",
            pb.ListAssetsRequest(job_id=job_id, user_id=user_id, page_size=1000),
        )
        for asset in page.assets
    ]
    try:
        outputs = {
            stream.name: await read_whole(replicas, job_id, user_id, stream.name)
            for stream in job.output_streams
        }
    except Unread:
        raise Unreadable("ReadOutput was not answered") from None
    return Record(
        job=snapshot(job),
        outputs=outputs,
        steps=tuple(steps),
        assets=tuple(assets),
        attempts=await list_attempts(replicas, job_id, user_id),
        created_by=job.labels["mark"],
        ended_by=snapshot(job).result,
    )


async def list_attempts(
    replicas: Replicas, job_id: str, user_id: str, page_size: int = 1000
) -> tuple[Attempt, ...]:
    request = pb.ListAttemptsRequest(job_id=job_id, user_id=user_id, page_size=page_size)
    pages = _pages(replicas, "ListAttempts", request)
    return tuple([attempt(listed) async for page in pages for listed in page.attempts])


async def read_all(replicas: Replicas, history: History) -> None:
    """Read every job of every user; what was noted down and is not there any more was deleted."""
    found: dict[str, str] = {}
    history.read_at = time.monotonic()
    for user_id in USERS:
        request = pb.ListJobsRequest(user_id=user_id, page_size=1000)
        sent = time.monotonic()
        listed = [job async for page in _pages(replicas, "ListJobs", request) for job in page.jobs]
        _note("ListJobs", listed, sent, history)
        found |= {job.id: user_id for job in listed}
        for first in range(0, len(listed), 1000):
            sent = time.monotonic()
            ids = [job.id for job in listed[first : first + 1000]]
            batch = pb.BatchGetJobsRequest(user_id=user_id, job_ids=ids)
            answer = await replicas.ask("BatchGetJobs", batch)
            if answer.response is None or answer.response.missing_job_ids:
                raise Unreadable(f"not all jobs of {user_id} can be read")
            _note("BatchGetJobs", answer.response.jobs, sent, history)
    for job_id, record in history.records.items():
        if job_id not in found:
            history.records[job_id] = replace(record, deleted=True)
    turn = asyncio.Semaphore(AT_ONCE)

    async def read(job_id: str, user_id: str) -> None:
        async with turn:
            record = await read_record(replicas, job_id, user_id)
        if record is None:
            # Its deletion was asked for, without an answer, and done since it was listed.
            if job_id not in history.records:
                raise Unreadable(f"{job_id} was listed and cannot be read")
            record = replace(history.records[job_id], deleted=True)
        history.records[job_id] = record

    async with asyncio.TaskGroup() as reading:
        for job_id, user_id in found.items():
            reading.create_task(read(job_id, user_id))


def _note(rpc: str, jobs: Iterable[Any], sent: float, history: History) -> None:
    now = time.monotonic()
    history.operations += [
        Operation(rpc, sent, now, Outcome.ACKNOWLEDGED, job.id, told=snapshot(job)) for job in jobs
    ]


async def any_active(replicas: Replicas) -> bool:
    """Whether any job has not ended."""
    for user_id in USERS:
        request = pb.ListJobsRequest(user_id=user_id, filter={"statuses": ACTIVE}, page_size=1)
        answer = await replicas.ask("ListJobs", request)
        if answer.response is None or answer.response.jobs or answer.response.next_page_token:
            return True
    return False


async def _pages(replicas: Replicas, rpc: str, request: Any) -> AsyncIterator[Any]:
    while True:
        answer = await replicas.ask(rpc, request)
        if answer.outcome is not Outcome.ACKNOWLEDGED:
            raise Unreadable(f"{rpc} was not answered")
        yield answer.response
        request.page_token = answer.response.next_page_token
        if not request.page_token:
            return
