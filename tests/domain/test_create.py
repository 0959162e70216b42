"""A creation, and what a request id makes of repeating it."""

from dataclasses import replace

import pytest

from domain.jobs import NOW, OWNER, ids, job_in
from jobledger_server.domain.commands import Create
from jobledger_server.domain.errors import RequestIdReused
from jobledger_server.domain.machine import Decision, create
from jobledger_server.domain.model import Job, JobId, JobStatus, Payload

COMMAND = Create(
    user_id=OWNER,
    job_type="render",
    parameters=Payload(b"p"),
    labels={"team": "red"},
    request_id="request-1",
)


def test_a_new_job_is_queued_at_version_one_with_nothing_done() -> None:
    assert create(None, COMMAND, now=NOW, new_id=ids()) == Decision(
        job=Job(
            id=JobId("id-000001"),
            user_id=OWNER,
            job_type="render",
            parameters=Payload(b"p"),
            labels={"team": "red"},
            request_id="request-1",
            status=JobStatus.QUEUED,
            progress=0,
            progress_message="",
            attempt=0,
            worker_id="",
            result=None,
            error=None,
            create_time=NOW,
            update_time=NOW,
            start_time=None,
            complete_time=None,
            version=1,
            end_digest=None,
        ),
        changed=True,
        applied=True,
        deleted=False,
        transition=None,
        assets=(),
    )


@pytest.mark.parametrize("state", list(JobStatus))
def test_repeating_a_creation_gives_the_job_as_it_stands_now(state: JobStatus) -> None:
    existing = job_in(state)
    decision = create(existing, COMMAND, now=NOW, new_id=ids())
    assert decision == Decision(job=existing, changed=False)


@pytest.mark.parametrize("state", list(JobStatus))
@pytest.mark.parametrize(
    "other",
    [
        replace(COMMAND, job_type="print"),
        replace(COMMAND, parameters=None),
        replace(COMMAND, parameters=Payload(b"")),
        replace(COMMAND, parameters=Payload(b"q")),
        replace(COMMAND, labels={}),
        replace(COMMAND, labels={"team": "blue"}),
        replace(COMMAND, labels={"team": "red", "tier": "1"}),
    ],
)
def test_a_request_id_used_for_something_else_is_refused(state: JobStatus, other: Create) -> None:
    existing = job_in(state)
    with pytest.raises(RequestIdReused) as refusal:
        create(existing, other, now=NOW, new_id=ids())
    assert refusal.value.request_id == "request-1"
    assert refusal.value.made_id == existing.id


def test_the_order_of_labels_is_not_content() -> None:
    first = replace(COMMAND, labels={"a": "1", "b": "2"})
    existing = create(None, first, now=NOW, new_id=ids()).job
    again = replace(COMMAND, labels={"b": "2", "a": "1"})
    assert not create(existing, again, now=NOW, new_id=ids()).changed
