"""For the owners of jobs: create them, see where they stand."""

import uuid
from argparse import Namespace

from connect import DEADLINE, Client
from printing import as_json, emit

from jobledger.v1.job_service_pb2 import (
    CreateJobRequest,
    GetJobRequest,
    ListJobsRequest,
    UniquePolicy,
)


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
