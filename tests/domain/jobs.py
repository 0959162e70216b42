"""One job in each state, as it would be after a plain history, and the commands that act on it."""

from dataclasses import replace
from itertools import count

from jobledger_server.domain.commands import Transit
from jobledger_server.domain.machine import NewId, digest_of_end
from jobledger_server.domain.model import (
    AssetLink,
    Instant,
    Job,
    JobError,
    JobId,
    JobStatus,
    Payload,
)

JOB_ID = JobId("01900000-0000-7000-8000-000000000001")
OWNER = "ada"
WORKER = "worker-1"
NOW = Instant(5_000_000)
LINK = AssetLink(
    asset_type="image/png",
    url="https://files.example/a.png",
    storage_path="a.png",
    file_size=7,
)
OTHER_LINK = AssetLink(asset_type="text/plain", url="", storage_path="b.txt", file_size=0)
ERROR = JobError(reason="OUT_OF_MEMORY", message="64 GiB were not enough", details=Payload(b"d"))

ENDED_BY = {
    JobStatus.COMPLETED: Transit(
        job_id=JOB_ID, target=JobStatus.COMPLETED, result=Payload(b"r"), assets=(LINK,)
    ),
    JobStatus.PARTIAL: Transit(
        job_id=JOB_ID, target=JobStatus.PARTIAL, result=Payload(b"r"), error=ERROR
    ),
    JobStatus.FAILED: Transit(job_id=JOB_ID, target=JobStatus.FAILED, error=ERROR),
}
"""The report that ended the job of `job_in`, for each terminal state."""


def job_in(status: JobStatus) -> Job:
    """Return a job that was started at progress 0, reported 40, and ended, as far as it got."""
    fresh = Job(
        id=JOB_ID,
        user_id=OWNER,
        job_type="render",
        create_time=Instant(1_000_000),
        update_time=Instant(1_000_000),
        parameters=Payload(b"p"),
        labels={"team": "red"},
        request_id="request-1",
    )
    if status is JobStatus.QUEUED:
        return fresh
    running = replace(
        fresh,
        status=JobStatus.PROCESSING,
        progress=40,
        progress_message="drawing",
        attempt=1,
        worker_id=WORKER,
        start_time=Instant(2_000_000),
        update_time=Instant(3_000_000),
        version=3,
    )
    if status is JobStatus.PROCESSING:
        return running
    end = ENDED_BY[status]
    return replace(
        running,
        status=status,
        progress=40 if status is JobStatus.FAILED else 100,
        result=end.result,
        error=end.error,
        update_time=Instant(4_000_000),
        complete_time=Instant(4_000_000),
        version=4,
        end_digest=digest_of_end(end),
    )


def ids() -> NewId:
    """Return a source of ids that counts."""
    numbers = count(1)
    return lambda: f"id-{next(numbers):06}"
