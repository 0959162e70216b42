"""Cancels and deletes single jobs by the calls for many, whose filter finds one alone."""

import time
from dataclasses import replace
from typing import Any

from jobledger.v1 import job_service_pb2 as pb
from tests.checker.clients.asking import Answer, Replicas
from tests.checker.history import History, Outcome, Record, Snapshot


async def cancel_by_filter(
    mark: str, job: Snapshot, replicas: Replicas, history: History
) -> Snapshot | None:
    """Cancel the job that a creation made; return it as it is then, if that is known."""
    request = pb.CancelJobsRequest(user_id=job.user_id, filter=pb.JobFilter(request_id=mark))
    answer = await _in_steps("CancelJobs", request, replicas)
    told = None
    if answer.outcome is Outcome.ACKNOWLEDGED:
        get = pb.GetJobRequest(job_id=job.job_id, user_id=job.user_id, view="JOB_VIEW_BASIC")
        read = await replicas.ask("GetJob", get)
        told = read.told
        answer = replace(answer, answered=read.answered)
    history.operations.append(answer.operation("CancelJob", job_id=job.job_id, told=told))
    return told


async def delete_by_filter(record: Record, replicas: Replicas, history: History) -> None:
    """Delete a job that has ended, of which the record is known, and which repeats no other."""
    job = record.job
    history.records[job.job_id] = record
    by_request = pb.JobFilter(request_id=record.created_by)
    request = pb.DeleteJobsRequest(user_id=job.user_id, filter=by_request)
    answer = await _in_steps("DeleteJobs", request, replicas)
    history.operations.append(answer.operation("DeleteJobs", job_id=job.job_id))


async def _in_steps(rpc: str, request: Any, replicas: Replicas) -> Answer:
    """Call until all is done; return how the last step went, from the first one on."""
    sent, tries = time.monotonic(), 0
    while True:
        answer = await replicas.ask(rpc, request)
        tries += answer.tries
        if answer.response is None or answer.response.done:
            return replace(answer, sent=sent, tries=tries)
        request.page_token = answer.response.next_page_token
