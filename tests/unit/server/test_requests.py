"""The rules of requests, field by field; `test_bad_input.py` sends the same through a server."""

from collections.abc import Callable
from typing import Any

import pytest

from jobledger.v1 import job_service_pb2, worker_service_pb2
from jobledger_server.rpc.jobs import bulk_requests, job_requests
from jobledger_server.rpc.validation import InvalidRequest
from jobledger_server.rpc.workers.worker_requests import WorkerRequests
from tests.support.bad_requests import BAD_REQUESTS

REQUESTS = WorkerRequests({"http", "https"})
READ: dict[str, Callable[[Any], Any]] = {
    "CancelJob": job_requests.cancel,
    "CancelJobs": bulk_requests.cancel_jobs,
    "ClaimJobs": REQUESTS.claim,
    "CreateAsset": REQUESTS.link_asset,
    "CreateWatchToken": job_requests.watch_token,
    "CreateJob": job_requests.create,
    "DeleteJob": job_requests.delete,
    "DeleteJobs": bulk_requests.delete_jobs,
    "BatchGetJobs": job_requests.batch,
    "GetJob": job_requests.viewed_job,
    "ListAssets": job_requests.listed_job,
    "ListAttempts": job_requests.listed_job,
    "ListJobs": job_requests.query,
    "ListTransitions": job_requests.listed_job,
    "WatchJob": job_requests.viewed_job,
    "WatchJobs": job_requests.selection,
    "MarkCompleted": REQUESTS.mark,
    "MarkFailed": REQUESTS.mark,
    "MarkPartial": REQUESTS.mark,
    "ReleaseJob": REQUESTS.release,
    "RerunJob": job_requests.rerun,
    "RerunJobs": bulk_requests.rerun_jobs,
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
