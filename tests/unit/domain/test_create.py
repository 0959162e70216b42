"""A creation, and what a request id makes of repeating it."""

import pytest
from msgspec.structs import replace

from jobledger_server.domain.commands import Create
from jobledger_server.domain.decisions import create
from jobledger_server.domain.errors import RequestIdReused, UniqueKeyTaken
from jobledger_server.domain.job import (
    Instant,
    Job,
    JobId,
    JobStatus,
    Micros,
    Payload,
    Payloads,
    Phase,
)
from jobledger_server.domain.state_machine import Decision
from tests.unit.domain.jobs import (
    NOW,
    OWNER,
    PARAMETERS,
    QUEUE_TIMEOUT,
    RUN_TIMEOUT,
    SECOND,
    STATES,
    State,
    ids,
    job_in,
)

COMMAND = Create(
    user_id=OWNER,
    job_type="render",
    parameters=PARAMETERS,
    labels={"team": "red"},
    request_id="request-1",
    max_attempts=3,
    queue_timeout=QUEUE_TIMEOUT,
    traceparent="00-trace-1",
)


def test_a_new_job_is_queued_at_version_one_with_nothing_done() -> None:
    command = replace(COMMAND, run_timeout=RUN_TIMEOUT)
    assert create(None, command, now=NOW, new_id=ids()) == Decision(
        job=Job(
            id=JobId("id-000001"),
            user_id=OWNER,
            job_type="render",
            parameters_bytes=1,
            labels={"team": "red"},
            request_id="request-1",
            traceparent="00-trace-1",
            status=JobStatus.QUEUED,
            progress=0,
            progress_message="",
            attempt=0,
            max_attempts=3,
            releases=0,
            worker_id="",
            outcome_bytes=0,
            error=None,
            create_time=NOW,
            update_time=NOW,
            start_time=None,
            attempt_time=None,
            complete_time=None,
            lease_duration=None,
            lease_expire_time=None,
            queue_timeout=QUEUE_TIMEOUT,
            queue_expire_time=Instant(605_000_000),
            run_timeout=RUN_TIMEOUT,
            run_expire_time=None,
            cancel_request_time=None,
            cancel_reason="",
            version=1,
            outcome_digest=None,
        ),
        changed=True,
        applied=True,
        deleted=False,
        transition=None,
        payloads=Payloads(parameters=PARAMETERS),
        ended=None,
        assets=(),
        via=None,
    )


@pytest.mark.parametrize("state", STATES)
def test_repeating_a_creation_returns_the_job_in_its_present_state(state: State) -> None:
    existing = job_in(state)
    command = replace(
        COMMAND,
        schedule_time=existing.schedule_time,
        concurrency_key=existing.concurrency_key,
    )
    decision = create((existing, PARAMETERS), command, now=NOW, new_id=ids())
    assert decision == Decision(job=existing, changed=False)


@pytest.mark.parametrize(
    "other",
    [
        replace(COMMAND, job_type="print"),
        replace(COMMAND, parameters=Payload(b"q")),
        replace(COMMAND, labels={"team": "red", "tier": "1"}),
        replace(COMMAND, max_attempts=0),
        replace(COMMAND, schedule_time=NOW),
        replace(COMMAND, delay=Micros(SECOND)),
        replace(COMMAND, origin_job_id=JobId("another")),
    ],
)
def test_a_request_id_used_for_something_else_is_refused(other: Create) -> None:
    """Each other field of a creation is compared by `unit/server/test_creations.py`."""
    for existing in map(job_in, STATES):
        with pytest.raises(RequestIdReused) as refusal:
            create((existing, PARAMETERS), other, now=NOW, new_id=ids())
        assert repr(refusal.value) == repr(RequestIdReused("request-1", "Job", existing.id))


@pytest.mark.parametrize(
    ("schedule", "begins"), [(None, NOW), (NOW - 9 * SECOND, NOW), (NOW + SECOND, NOW + SECOND)]
)
def test_the_queue_timeout_counts_from_the_schedule_or_from_the_creation(
    schedule: int | None, begins: int
) -> None:
    at = None if schedule is None else Instant(schedule)
    job = create(None, replace(COMMAND, schedule_time=at), now=NOW, new_id=ids()).job
    assert (job.schedule_time, job.queue_expire_time) == (at, begins + QUEUE_TIMEOUT)


@pytest.mark.parametrize(
    ("schedule", "full", "phase"),
    [
        (None, False, Phase.READY),
        (NOW, False, Phase.READY),
        (NOW + 1, False, Phase.SCHEDULED),
        (None, True, Phase.BLOCKED),
        (NOW, True, Phase.BLOCKED),
        (NOW + 1, True, Phase.SCHEDULED),
    ],
)
def test_a_new_job_is_ready_unless_its_time_is_later_or_its_key_is_full(
    schedule: int | None,
    full: bool,  # noqa: FBT001
    phase: Phase,
) -> None:
    at = None if schedule is None else Instant(schedule)
    command = replace(COMMAND, schedule_time=at, concurrency_key="s3")
    assert create(None, command, now=NOW, new_id=ids(), full=full).job.phase is phase


UNIQUE = replace(COMMAND, unique_key="invoice-1", request_id="request-2")


def test_a_second_job_with_a_unique_key_is_refused_or_the_first_one_is_returned() -> None:
    first = create(None, UNIQUE, now=NOW, new_id=ids()).job
    with pytest.raises(UniqueKeyTaken) as refusal:
        create(None, UNIQUE, now=NOW, new_id=ids(), active=first)
    assert repr(refusal.value) == repr(UniqueKeyTaken("invoice-1", first.id))
    # Whatever else the creation says: it asks for the job that there is.
    other = replace(UNIQUE, return_existing=True, parameters=None, priority=9)
    decision = create(None, other, now=NOW, new_id=ids(), active=first)
    assert decision == Decision(job=first, changed=False)


def test_a_repeated_creation_is_not_refused_for_the_unique_key_of_its_own_job() -> None:
    first = create(None, UNIQUE, now=NOW, new_id=ids()).job
    again = create((first, PARAMETERS), UNIQUE, now=NOW, new_id=ids(), active=first)
    assert again == Decision(job=first, changed=False)


def test_a_job_is_repeated_by_one_job_whatever_is_sent() -> None:
    """The pace of RerunJobs gives each call another time, and a call need not have a request id."""
    repeat = replace(COMMAND, origin_job_id=JobId("failed"), request_id="", schedule_time=NOW)
    job = create(None, repeat, now=NOW, new_id=ids()).job
    assert (job.origin_job_id, job.attempt, job.checkpoint_bytes) == ("failed", 0, 0)
    for again in (
        repeat,
        replace(repeat, schedule_time=None),
        replace(repeat, request_id="request-2"),
    ):
        decision = create((job, PARAMETERS), again, now=NOW, new_id=ids())
        assert decision == Decision(job=job, changed=False)


def test_the_trace_of_a_creation_is_not_content() -> None:
    existing = create(None, COMMAND, now=NOW, new_id=ids()).job
    other = replace(COMMAND, traceparent="00-2")
    again = create((existing, PARAMETERS), other, now=NOW, new_id=ids())
    assert (again.changed, again.job) == (False, existing)
