"""The rules of requests, field by field; `test_bad_input.py` sends the same through a server."""

from collections.abc import Callable
from typing import Any

import pytest

from jobledger.v1 import job_service_pb2, worker_service_pb2
from jobledger_server.rpc.jobs import bulk_requests, job_requests, output_requests
from jobledger_server.rpc.validation import InvalidRequest
from jobledger_server.rpc.workers.work_requests import work_message
from jobledger_server.rpc.workers.worker_requests import WorkerRequests
from tests.support.bad_requests import BAD_REQUESTS

REQUESTS = WorkerRequests({"http", "https"})
READ: dict[str, Callable[[Any], Any]] = {
    "AppendOutput": REQUESTS.append_output,
    "CancelJob": job_requests.cancel,
    "CancelJobs": bulk_requests.cancel_jobs,
    "ClaimJobs": REQUESTS.claim,
    "CreateAsset": REQUESTS.link_asset,
    "CreateWatchToken": job_requests.watch_token,
    "CreateJob": job_requests.create,
    "DeleteJob": job_requests.delete,
    "DeleteJobs": bulk_requests.delete_jobs,
    "BatchCreateJobs": job_requests.create_all,
    "BatchGetJobs": job_requests.batch,
    "GetJob": job_requests.viewed_job,
    "ListAssets": job_requests.listed_job,
    "ListAttempts": job_requests.listed_job,
    "ListJobs": job_requests.query,
    "ListTransitions": job_requests.listed_job,
    "ReadOutput": output_requests.read,
    "WatchJob": job_requests.viewed_job,
    "WatchOutput": output_requests.watched,
    "WatchJobs": job_requests.selection,
    "MarkCompleted": REQUESTS.mark,
    "MarkFailed": REQUESTS.mark,
    "MarkPartial": REQUESTS.mark,
    "ReleaseJob": REQUESTS.release,
    "RerunJob": job_requests.rerun,
    "RerunJobs": bulk_requests.rerun_jobs,
    "SealGroup": job_requests.seal,
    "UpdateJob": job_requests.update,
    "TransitionJob": REQUESTS.change_status,
    "UpdateProgress": REQUESTS.report,
}


@pytest.mark.parametrize("method", sorted({method for method, *_ in BAD_REQUESTS}))
def test_a_field_that_breaks_its_rule_is_named(method: str) -> None:
    name = f"{method}Request"
    made_by = job_service_pb2 if hasattr(job_service_pb2, name) else worker_service_pb2
    bad = [each[1:] for each in BAD_REQUESTS if each[0] == method]
    for fields, field, words in bad:
        with pytest.raises(InvalidRequest) as refused:
            READ[method](getattr(made_by, name)(**fields))
        ((at, description),) = refused.value.violations
        assert (at, words in description) == (field, True), (fields, description)
        assert "secret" not in description


UPDATES = {
    "UpdateProgress": ("progress", 0),
    "CreateAsset": ("asset", 0),
    "MarkCompleted": ("finish", 3),
    "MarkPartial": ("finish", 4),
    "MarkFailed": ("finish", 5),
    "ReleaseJob": ("release", 0),
}
"""By call: the update that it embeds, and the state that the call says."""

GOOD: dict[str, Any] = {
    "UpdateProgress": {"progress": 50, "checkpoint": {"step": 1}, "report_number": 7},
    "CreateAsset": {"asset": {"asset_type": "t", "url": "https://e/a"}, "request_id": "r"},
    "MarkFailed": {"error": {"message": "no"}, "retryable": True},
    "ReleaseJob": {"delay": {"seconds": 5}},
}


@pytest.mark.parametrize("method", UPDATES)
def test_a_call_takes_what_an_update_of_work_takes_by_the_same_rules(method: str) -> None:
    part, status = UPDATES[method]
    given = [fields for each, fields, *_ in BAD_REQUESTS if each == method and part in fields]
    # A call says the status itself, and has a fence of its own.
    given = [each for each in given if each.keys() == {"job_id", "attempt", part}]
    given = [each for each in given if not each.get("finish", {}).get("status")]
    for fields in [*given, {"job_id": "j", "attempt": 1, part: GOOD.get(method, {})}]:
        request = getattr(worker_service_pb2, f"{method}Request")(**fields)
        update = worker_service_pb2.JobUpdate(
            job_id=request.job_id, attempt=request.attempt, **{part: getattr(request, part)}
        )
        if status:
            update.finish.status = status
        assert outcome_of_update(update) == outcome_of_call(method, request)


def outcome_of_call(method: str, request: Any) -> Any:
    """Return the command, or the violations."""
    try:
        return READ[method](request)
    except InvalidRequest as refused:
        return refused.violations


def outcome_of_update(update: worker_service_pb2.JobUpdate) -> Any:
    """Return the command, or the violations."""
    hello = worker_service_pb2.WorkHello(worker_id="w", job_types=["t"])
    message = worker_service_pb2.WorkRequest(hello=hello, updates=[update])
    read = work_message(message.SerializeToString(), {"http", "https"}, first=True)
    ((_, command),) = read.updates
    return command.violations if isinstance(command, InvalidRequest) else command
