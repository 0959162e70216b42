"""Each call that takes a job's id takes the job itself, too."""

import inspect
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from jobledger import Client, Job, JobStatus, Pager
from tests.e2e.client.conftest import Flaky

JOB = Job(id=str(uuid.uuid4()), job_type="render")

# What each call needs besides; those that watch are below.
CALLS: dict[str, dict[str, Any]] = {
    "cancel_job": {},
    "create_asset": {"asset_type": "t", "url": "u", "any_attempt": True, "request_id": "r"},
    "create_watch_token": {},
    "append_output": {"attempt": 1, "data": "x"},
    "delete_job": {},
    "explain_job": {},
    "get_job": {},
    "list_assets": {},
    "list_attempts": {},
    "list_transitions": {},
    "mark_completed": {"any_attempt": True},
    "mark_failed": {"error": "no", "any_attempt": True},
    "mark_partial": {"any_attempt": True},
    "read_output": {},
    "release_job": {"attempt": 1},
    "rerun_job": {},
    "start_job": {},
    "transition_job": {"target_status": JobStatus.COMPLETED, "any_attempt": True},
    "update_job": {"priority": 1},
    "update_progress": {"progress": 1, "any_attempt": True},
}
WATCHES = {"watch", "wait", "result", "output"}


def test_each_call_of_the_client_with_a_job_id_is_tried_here() -> None:
    taking = {
        name
        for name, call in inspect.getmembers(Client, inspect.isfunction)
        if not name.startswith("_") and "job_id" in inspect.signature(call).parameters
    }
    assert taking == CALLS.keys() | WATCHES


@pytest.mark.parametrize("name", CALLS)
def test_a_call_sends_the_id_of_the_job(flaky: Flaky, name: str) -> None:
    with Client(flaky.target, user_id="ada") as client:
        for given in (JOB, JOB.id):
            answer = getattr(client, name)(given, **CALLS[name])
            if isinstance(answer, Pager):
                list(answer)
    by_job, by_id = flaky.requests
    assert by_job == by_id
    assert JOB.id.encode() in by_job


@pytest.mark.parametrize(
    "wait",
    [
        lambda client, job: [client.wait(job)],
        lambda client, job: client.wait_all([job, job.id])[:1],
        lambda client, job: list(client.as_completed([job])),
        lambda client, job: [change.job for change in client.watch(job)],
        lambda client, job: list(client.get_jobs([job]).values()),
    ],
)
def test_jobs_are_awaited_and_found_by_themselves(
    client: Client, wait: Callable[[Client, Job], list[Job]]
) -> None:
    job = client.start_job(client.create_job("render"))
    client.mark_completed(job, attempt=job.attempt)
    assert [found.id for found in wait(client, job)] == [job.id]


def test_a_rerun_is_found_by_the_job_that_it_runs_again(client: Client) -> None:
    job = client.cancel_job(client.create_job("render"))
    rerun = client.rerun_job(job)
    assert list(client.list_jobs(origin_job_id=job)) == [rerun]
