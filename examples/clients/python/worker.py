"""For those who do the work: take a job, report on it, end it."""

from argparse import Namespace

from connect import DEADLINE, Client
from google.protobuf.duration_pb2 import Duration
from printing import as_json, emit

from jobledger.v1.asset_pb2 import NewAsset
from jobledger.v1.job_pb2 import Job, JobError
from jobledger.v1.worker_service_pb2 import (
    AppendOutputRequest,
    AssetUpdate,
    ClaimJobsRequest,
    CreateAssetRequest,
    FinishUpdate,
    MarkCompletedRequest,
    MarkFailedRequest,
    MarkPartialRequest,
    ProgressUpdate,
    UpdateProgressRequest,
)


def work(client: Client, options: Namespace) -> None:
    """Do one job, if there is one.

    Each call carries the attempt: should the lease expire and the job pass to another
    worker, this one is refused instead of heard.
    """
    claim = client.workers.ClaimJobs(
        ClaimJobsRequest(
            worker_id=options.worker,
            job_types=[options.type],
            max_jobs=1,
            lease_duration=Duration(seconds=60),
            wait=Duration(seconds=options.wait),
        ),
        timeout=options.wait + DEADLINE,
    )
    if not claim.jobs:
        emit("idle")
        return
    job = claim.jobs[0]
    emit("claimed", job=as_json(job))

    # Work that takes longer than the lease must report within it; a report without progress is
    # a heartbeat. If cancel_requested is true, clean up and call ReleaseJob.
    progress = client.workers.UpdateProgress(
        UpdateProgressRequest(
            job_id=job.id,
            attempt=job.attempt,
            progress=ProgressUpdate(progress=50, progress_message=options.message),
        ),
        timeout=DEADLINE,
    )
    emit("progressed", result={"applied": progress.applied})

    for number, text in enumerate(options.output, start=1):
        appended = client.workers.AppendOutput(
            AppendOutputRequest(
                job_id=job.id,
                attempt=job.attempt,
                number=number,  # So a retry of the call does not append it again.
                data=text.encode(),
            ),
            timeout=DEADLINE,
        )
        emit("appended", result={"next_offset": str(appended.next_offset)})

    linked = client.workers.CreateAsset(
        CreateAssetRequest(
            job_id=job.id,
            attempt=job.attempt,
            asset=AssetUpdate(
                asset=NewAsset(
                    asset_type="application/octet-stream",
                    storage_path=f"results/{job.id}/{job.attempt}",
                    file_size=options.asset_size,
                ),
                request_id=f"attempt-{job.attempt}",
            ),
        ),
        timeout=DEADLINE,
    )
    emit("linked", result={"asset": as_json(linked.asset)})

    emit("ended", result={"version": str(end(client, options, job).version)})


def end(client: Client, options: Namespace, job: Job) -> Job:
    result = options.result
    retry = options.outcome == "retried" and job.attempt == 1
    match "failed" if retry else options.outcome:
        case "completed" | "retried":
            completed = MarkCompletedRequest(
                job_id=job.id, attempt=job.attempt, finish=FinishUpdate(result=result)
            )
            return client.workers.MarkCompleted(completed, timeout=DEADLINE).job
        case "partial":
            error = JobError(reason="SOME_MISSING", message=options.message)
            partial = MarkPartialRequest(
                job_id=job.id, attempt=job.attempt, finish=FinishUpdate(result=result, error=error)
            )
            return client.workers.MarkPartial(partial, timeout=DEADLINE).job
        case _:
            error = JobError(reason="NOT_DONE", message=options.message)
            failed = MarkFailedRequest(
                job_id=job.id,
                attempt=job.attempt,
                # With attempts left the job waits for the next one, instead of being FAILED.
                finish=FinishUpdate(result=result, error=error, retryable=retry),
            )
            return client.workers.MarkFailed(failed, timeout=DEADLINE).job


def complete(client: Client, options: Namespace) -> None:
    request = MarkCompletedRequest(
        job_id=options.job,
        attempt=options.attempt,
        any_attempt=options.attempt is None,
        finish=FinishUpdate(result=options.result),
    )
    emit("ended", job=as_json(client.workers.MarkCompleted(request, timeout=DEADLINE).job))
