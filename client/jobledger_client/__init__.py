"""The client of Jobledger, the service that knows where each long-running job stands.

    from jobledger_client import Client, JobStatus

    with Client("127.0.0.1:50051", user_id="ada") as client:
        job = client.create_job("render", {"scene": "castle"})
        for message in client.watch(job.id):
            print(JobStatus.Name(message.job.status), message.job.progress)

All of an owner's jobs, or everybody's, can be followed at once; a program that keeps
the tokens goes on where it was, after a restart of the service or of its own:

    with Client("127.0.0.1:50051", user_id="ada") as client:
        for message in client.watch_jobs(resume_token=load(), on_gap=begin_anew):
            take_in(message)
            save(message.resume_token)

A worker claims the job, reports on it and ends it:

    with Client("127.0.0.1:50051") as worker:
        for job in worker.claim_jobs(["render"], wait=60):
            worker.update_progress(job.id, 50, attempt=job.attempt)
            worker.mark_completed(job.id, {"frames": 240}, attempt=job.attempt)

Many jobs are created in one transaction, and reported on over one stream:

    with Client("127.0.0.1:50051", user_id="ada") as client:
        jobs = client.create_jobs(NewJob("render", {"scene": name}) for name in scenes)

    with Client("127.0.0.1:50051") as worker, worker.report_progress() as reports:
        for job in worker.claim_jobs(["render"], max_jobs=100):
            reports.send(job.id, 10, attempt=job.attempt)

`jobledger_client.worker` does a worker's part, and all that belongs to it, by itself.

AsyncClient is the same for asyncio. Calls return the service's own messages and
raise a JobledgerError; see `jobledger_client.errors`.
"""

from jobledger.v1.asset_pb2 import Asset
from jobledger.v1.job_pb2 import Job, JobError, JobStatus, JobTransition
from jobledger.v1.job_service_pb2 import WatchJobResponse, WatchJobsResponse
from jobledger.v1.worker_service_pb2 import ReportProgressResponse, UpdateProgressResponse
from jobledger_client._async import AsyncClient
from jobledger_client._channel import CHANNEL_OPTIONS
from jobledger_client._new_job import NewJob
from jobledger_client._reports import AsyncReports
from jobledger_client._reports_sync import Reports
from jobledger_client._sync import Client
from jobledger_client._watch import TERMINAL_STATUSES
from jobledger_client.errors import (
    AccessDenied,
    DeadlineExceeded,
    IllegalTransition,
    InternalError,
    InvalidField,
    InvalidToken,
    JobledgerError,
    JobNotFound,
    JobTerminal,
    LeaseLost,
    LimitExceeded,
    RequestIdReused,
    ResumeTokenExpired,
    Unavailable,
    VersionMismatch,
)

__all__ = [
    "CHANNEL_OPTIONS",
    "TERMINAL_STATUSES",
    "AccessDenied",
    "Asset",
    "AsyncClient",
    "AsyncReports",
    "Client",
    "DeadlineExceeded",
    "IllegalTransition",
    "InternalError",
    "InvalidField",
    "InvalidToken",
    "Job",
    "JobError",
    "JobNotFound",
    "JobStatus",
    "JobTerminal",
    "JobTransition",
    "JobledgerError",
    "LeaseLost",
    "LimitExceeded",
    "NewJob",
    "ReportProgressResponse",
    "Reports",
    "RequestIdReused",
    "ResumeTokenExpired",
    "Unavailable",
    "UpdateProgressResponse",
    "VersionMismatch",
    "WatchJobResponse",
    "WatchJobsResponse",
]
