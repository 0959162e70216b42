"""Every program reads the whole error: code, reason, facts, violations."""

import uuid

from tests.polyglot.ledger import Ledger, job_in
from tests.polyglot.programs import Event, Jobs

PLAIN: Event = {
    "event": "error",
    "metadata": {},
    "field_violations": [],
    "precondition_violations": [],
    "retry_delay_ms": None,
}


def expected(error: Event, **facts: object) -> Event:
    """Return the whole line that is expected; of the message, that there is one."""
    assert isinstance(error["message"], str)
    assert error["message"]
    return {**PLAIN, "message": error["message"], **facts}


def test_a_transition_that_is_not_in_the_table_is_refused(
    jobs: Jobs, ledger: Ledger, kind: str
) -> None:
    job = ledger.create(kind)
    error = jobs.refused("complete", job=job.id)
    assert error["precondition_violations"] == [
        {
            "type": "ILLEGAL_TRANSITION",
            "subject": job.id,
            "description": error["message"],
        }
    ]
    assert error == expected(
        error,
        code="FAILED_PRECONDITION",
        reason="ILLEGAL_TRANSITION",
        metadata={
            "job_id": job.id,
            "current": "QUEUED",
            "target": "COMPLETED",
            "allowed": "PROCESSING",
        },
        precondition_violations=error["precondition_violations"],
    )


def test_a_request_id_gives_the_same_job_and_never_another(
    jobs: Jobs, ledger: Ledger, kind: str
) -> None:
    request_id = str(uuid.uuid4())
    (first,) = jobs.run("create", user=kind, type="render", request_id=request_id)
    (second,) = jobs.run("create", user=kind, type="render", request_id=request_id)
    assert job_in(first) == job_in(second) == ledger.get(job_in(first))
    error = jobs.refused("create", user=kind, type="other", request_id=request_id)
    assert error == expected(
        error,
        code="ALREADY_EXISTS",
        reason="REQUEST_ID_REUSED",
        metadata={"request_id": request_id},
    )


def test_a_unique_key_that_is_taken_is_refused_or_gives_the_existing_job(
    jobs: Jobs, ledger: Ledger, kind: str
) -> None:
    job = job_in(jobs.run("create", user=kind, type=kind, unique_key="nightly")[0])
    error = jobs.refused("create", user=kind, type=kind, unique_key="nightly")
    assert error == expected(
        error,
        code="ALREADY_EXISTS",
        reason="UNIQUE_KEY_TAKEN",
        metadata={"unique_key": "nightly", "job_id": job.id},
    )
    options = {"unique_key": "nightly", "unique_policy": "return-existing"}
    (existing,) = jobs.run("create", user=kind, type=kind, priority=9, **options)
    assert job_in(existing) == job
    ledger.complete(ledger.start(job))
    (another,) = jobs.run("create", user=kind, type=kind, **options)
    assert job_in(another).id != job.id


def test_a_create_without_a_request_id_makes_a_job_each_time(jobs: Jobs, kind: str) -> None:
    first, second = (jobs.run("create", user=kind, type="render")[0] for _ in range(2))
    assert job_in(first).id != job_in(second).id


def test_every_bad_field_is_named(jobs: Jobs) -> None:
    error = jobs.refused(
        "create", user="u" * 129, type="not a type", label=["bad key=1", f"a={'v' * 256}"]
    )
    assert error["reason"] == "INVALID_FIELD"
    # A map has no order: neither have the violations of its entries.
    fields = sorted(each["field"] for each in error["field_violations"])
    assert fields == ["job_type", "labels", "labels['a']", "user_id"]
    assert all(each["description"] for each in error["field_violations"])
    assert error == expected(
        error,
        code="INVALID_ARGUMENT",
        reason="INVALID_FIELD",
        field_violations=error["field_violations"],
    )


def test_a_wrong_command_line_ends_with_2_and_prints_nothing(jobs: Jobs) -> None:
    for command, options in (("dance", {}), ("get", {"no_such_option": "1"})):
        with jobs.start(command, **options) as running:
            assert running.finish(exit_code=2) == []
