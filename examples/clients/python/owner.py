"""For the owners of jobs: create them, see where they stand, watch them move."""

import random
import time
import uuid
from argparse import Namespace

import grpc
from connect import DEADLINE, Client
from failure import read_error
from printing import as_json, emit

from jobledger.v1.job_pb2 import JobStatus
from jobledger.v1.job_service_pb2 import (
    CreateJobRequest,
    GetJobRequest,
    ListJobsRequest,
    UniquePolicy,
    WatchJobRequest,
)

ENDED = {
    JobStatus.JOB_STATUS_COMPLETED,
    JobStatus.JOB_STATUS_PARTIAL,
    JobStatus.JOB_STATUS_FAILED,
}


def create(client: Client, options: Namespace) -> None:
    request = CreateJobRequest(
        user_id=options.user,
        job_type=options.type,
        parameters=options.parameters,
        labels=dict(options.label),
        # The retries of one call share it; a caller that may itself be run again keeps it
        # with its own data.
        request_id=options.request_id or str(uuid.uuid4()),
        # Who goes next, and how many at once: docs/guides/priorities.md and limits.md.
        priority=options.priority,
        fairness_key=options.fairness_key,
        concurrency_key=options.concurrency_key,
        unique_key=options.unique_key,
    )
    if options.unique_policy == "return-existing":
        request.unique_policy = UniquePolicy.UNIQUE_POLICY_RETURN_EXISTING
    if options.stall_timeout is not None:
        request.stall_timeout.seconds = options.stall_timeout
    if options.max_attempts is not None:
        # The pause before each retry has defaults: a second, then twice as long each time.
        request.retry_policy.max_attempts = options.max_attempts
    emit("created", job=as_json(client.jobs.CreateJob(request, timeout=DEADLINE).job))


def get(client: Client, options: Namespace) -> None:
    request = GetJobRequest(job_id=options.job, user_id=options.user)
    emit("job", job=as_json(client.jobs.GetJob(request, timeout=DEADLINE).job))


def list_jobs(client: Client, options: Namespace) -> None:
    request = ListJobsRequest(user_id=options.user, page_size=options.page_size)
    while True:
        page = client.jobs.ListJobs(request, timeout=DEADLINE)
        emit("page", jobs=[as_json(job) for job in page.jobs])
        # More pages may follow a short one: only the token shows it.
        request.page_token = page.next_page_token
        if not request.page_token:
            return


def watch(client: Client, options: Namespace) -> None:
    """Follow a job to its end, over as many streams as that takes."""
    request = WatchJobRequest(
        job_id=options.job, user_id=options.user, after_version=options.after_version
    )
    failures = 0
    while True:
        delay = 0.0
        try:
            for answer in client.jobs.WatchJob(request):
                job = answer.job
                ended = job.status in ENDED
                news = not answer.heartbeat and job.version > request.after_version
                if news or ended:
                    request.after_version = job.version
                    steps = [as_json(step) for step in answer.transitions]
                    emit("changed", job=as_json(job), transitions=steps)
                if ended:
                    return
                # Not after the snapshot that greets each stream: a server that breaks
                # right after it would be called ten times a second.
                if news or answer.heartbeat:
                    failures = 0
            # OK before the job has ended: never the server's, a proxy's perhaps.
        except grpc.RpcError as error:
            if not is_transient(error):
                raise
            delay = (read_error(error)["retry_delay_ms"] or 0) / 1000
        # Full jitter, on top of what the server asks for: after a restart all watchers
        # come back, but not at once.
        time.sleep(delay + random.uniform(0, min(0.1 * 2 ** min(failures, 10), 5.0)))
        failures += 1


def is_transient(error: grpc.RpcError) -> bool:
    """Whether another stream may succeed."""
    match error.code():
        case (
            grpc.StatusCode.UNAVAILABLE
            | grpc.StatusCode.RESOURCE_EXHAUSTED
            | grpc.StatusCode.CANCELLED
            | grpc.StatusCode.DEADLINE_EXCEEDED
        ):
            return True
        case grpc.StatusCode.INTERNAL | grpc.StatusCode.UNKNOWN:
            # A stream reset on the way, unless the server says why.
            return not read_error(error)["reason"]
        case _:
            return False
