"""Reads what the service holds."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from jobledger.v1 import job_pb2
from jobledger.v1 import job_service_pb2 as pb
from tests.robustness.checker.asking import Replicas
from tests.robustness.checker.board import USERS
from tests.robustness.checker.facts import snapshot, step
from tests.robustness.checker.history import History, Outcome, Record

AT_ONCE = 16
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
    return Record(
        job=snapshot(job),
        steps=tuple(steps),
        assets=tuple(assets),
        created_by=job.labels["mark"],
        ended_by=job.result.fields["mark"].string_value,
    )


async def read_all(replicas: Replicas, history: History) -> None:
    """Read every job of every user; what was noted down and is not there any more was deleted."""
    found: dict[str, str] = {}
    for user_id in USERS:
        request = pb.ListJobsRequest(user_id=user_id, page_size=1000)
        async for page in _pages(replicas, "ListJobs", request):
            found |= {job.id: user_id for job in page.jobs}
    for job_id, record in history.records.items():
        if job_id not in found:
            history.records[job_id] = replace(record, deleted=True)
    turn = asyncio.Semaphore(AT_ONCE)

    async def read(job_id: str, user_id: str) -> None:
        async with turn:
            record = await read_record(replicas, job_id, user_id)
        if record is None:
            raise Unreadable(f"{job_id} was listed and cannot be read")
        history.records[job_id] = record

    async with asyncio.TaskGroup() as reading:
        for job_id, user_id in found.items():
            reading.create_task(read(job_id, user_id))


async def any_active(replicas: Replicas) -> bool:
    """Whether any job has not ended."""
    for user_id in USERS:
        request = pb.ListJobsRequest(user_id=user_id, statuses=ACTIVE, page_size=1)
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
